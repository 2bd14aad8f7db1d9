"""Notifications over HTTP: listed, counted, read once, and private."""

from __future__ import annotations

import asyncio

import pytest

from kit.portal import Person, World, payloads
from smartlink.broadcasting import PrivateChannel
from smartlink.portal.notifications.events import NotificationRead, NotificationsRead

KEYS = {"id", "type", "data", "read_at", "created_at"}


async def listed(person: Person, query: str = "") -> list[int]:
    answer = await person.get(f"/api/notifications{query}")
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()]


async def test_notifications_are_listed_newest_first_with_the_unread_count(
    world: World, ana: Person, ben: Person
) -> None:
    for text in ("one", "two", "three"):
        await world.direct_message(ben, ana, text)

    answer = await ana.get("/api/notifications")

    assert answer.headers["x-unread-count"] == "3"
    assert [row["data"]["excerpt"] for row in answer.json()] == ["three", "two", "one"]
    assert all(set(row) == KEYS for row in answer.json())
    first, second, third = (row["id"] for row in answer.json())
    assert await listed(ana, "?limit=1") == [first]
    assert await listed(ana, f"?before={first}") == [second, third]
    assert await listed(ben) == []


async def test_marking_one_as_read_is_announced_once_to_the_users_pages(world: World, ana: Person, ben: Person) -> None:
    for text in ("one", "two"):
        await world.direct_message(ben, ana, text)
    second, first = await listed(ana)

    answers = await asyncio.gather(*(ana.post(f"/api/notifications/{first}/read") for _ in range(4)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["read_at"] for answer in answers}) == 1
    assert answers[0].json()["read_at"] is not None
    assert await listed(ana, "?unread=1") == [second]
    (await world.broadcasts()).assert_broadcast(
        NotificationRead,
        on=PrivateChannel(f"user.{ana.id}"),
        times=1,
        where=lambda data: (
            set(data) == {"eventId", "notificationId", "user"}
            and data["notificationId"] == first
            and data["user"] == {"id": ana.id, "name": "Ana"}
        ),
    )


async def test_all_can_be_marked_as_read(world: World, ana: Person, ben: Person) -> None:
    for text in ("one", "two"):
        await world.direct_message(ben, ana, text)

    answer = await ana.post("/api/notifications/read")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert (await ana.get("/api/notifications?unread=1")).headers["x-unread-count"] == "0"
    await ana.post("/api/notifications/read")
    (await world.broadcasts()).assert_broadcast(NotificationsRead, on=PrivateChannel(f"user.{ana.id}"), times=1)


async def test_notifications_of_a_conversation_are_announced_together(world: World, ana: Person, ben: Person) -> None:
    for text in ("one", "two"):
        await world.direct_message(ben, ana, text)
    unread = await listed(ana)

    await ana.post(f"/api/chat/messages/private/{ben.id}/read")

    (await world.broadcasts()).assert_broadcast(
        NotificationsRead, times=1, where=lambda data: data["notificationIds"] == sorted(unread)
    )


@pytest.mark.parametrize("how", ["one", "all of the sender's"])
async def test_reading_a_message_marks_its_notification_as_read(
    world: World, ana: Person, ben: Person, eve: Person, how: str
) -> None:
    await world.direct_message(eve, ana, "from somebody else")
    message_id = await world.direct_message(ben, ana, "the last")
    await ana.post("/api/wallet/deposits", {"amount": "5"})
    money, about_it, others = await listed(ana)

    where = message_id if how == "one" else f"private/{ben.id}"
    for _ in range(2):
        assert (await ana.post(f"/api/chat/messages/{where}/read")).status_code == 200

    assert await listed(ana, "?unread=1") == [money, others]
    (await world.broadcasts()).assert_broadcast(
        NotificationRead,
        on=PrivateChannel(f"user.{ana.id}"),
        times=1,
        where=lambda data: data["notificationId"] == about_it,
    )


async def test_concurrent_marking_as_read_does_not_deadlock(world: World, ana: Person, ben: Person) -> None:
    for number in range(8):
        await world.direct_message(ben, ana, str(number))

    answers = await asyncio.gather(
        *(ana.post(f"/api/chat/messages/private/{ben.id}/read") for _ in range(3)),
        *(ana.post("/api/notifications/read") for _ in range(3)),
    )

    assert {answer.status_code for answer in answers} == {200}
    assert await listed(ana, "?unread=1") == []
    (await world.broadcasts()).assert_broadcast(NotificationsRead, times=1)


@pytest.mark.parametrize("odd", ["0", "-1", "abc", "01", "9223372036854775808", "999999"])
async def test_an_unknown_notification_is_404(ana: Person, odd: str) -> None:
    assert (await ana.post(f"/api/notifications/{odd}/read")).status_code == 404


async def test_other_users_notifications_are_404_and_stay_unread(world: World, ana: Person, ben: Person) -> None:
    await world.direct_message(ben, ana)
    [notification] = await listed(ana)

    assert (await ben.post(f"/api/notifications/{notification}/read")).status_code == 404
    assert await listed(ana, "?unread=1") == [notification]


async def test_echos_notification_event_is_sent_too(world: World, ana: Person, ben: Person) -> None:
    message_id = await world.direct_message(ben, ana, "Hello")

    [data] = payloads(await world.broadcasts(), "BroadcastNotificationCreated", PrivateChannel(f"user.{ana.id}"))
    assert (data["type"], data["message_id"], data["excerpt"]) == ("private_message", message_id, "Hello")
    [sent] = [e for e in (await world.broadcasts()).sent if e.name.endswith("BroadcastNotificationCreated")]
    assert sent.name == "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated"


async def test_without_a_sign_in_requests_get_401(world: World) -> None:
    assert (await world.client().get("/api/notifications")).status_code == 401
    assert (await world.client().post("/api/notifications/read")).status_code == 401
