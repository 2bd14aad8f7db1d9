"""A direct message is sent, then delivered, as the realtime server reports, then read."""

from __future__ import annotations

from typing import Any

import pytest

from kit.portal import Person, World
from portal.test_presence import tell
from smartlink.portal.chat.events import MessageDelivered, MessageSent, PrivateMessageSent
from smartlink.portal.notifications.events import NotificationCreated


def delivered(event_id: int, person: Person, channel: str = "private-x") -> dict[str, Any]:
    report_id = f"{event_id}-0123456789abcdef"
    return {"name": "event_delivered", "channel": channel, "id": report_id, "user_id": str(person.id)}


async def recorded(world: World) -> dict[str, int]:
    """The ids of the recorded events that ask for receipts, by their short names."""
    rows = await world.rows("SELECT name, id FROM recorded_events WHERE receipts")
    return {name.rpartition("\\")[2]: event_id for name, event_id in rows}


async def message(person: Person, peer: Person) -> dict[str, Any]:
    """The last message between two people, as one of them fetches it."""
    last: dict[str, Any] = (await person.get(f"/api/chat/messages/private/{peer.id}")).json()[-1]
    return last


async def test_only_direct_messages_and_their_notifications_ask_for_receipts(
    world: World, ana: Person, ben: Person
) -> None:
    await ana.post("/api/chat/messages", {"message": "to all"})
    await world.direct_message(ana, ben)

    sent = await world.broadcasts()
    for event, receipts in ((PrivateMessageSent, True), (NotificationCreated, True), (MessageSent, False)):
        sent.assert_broadcast(event, receipts=receipts, times=1)


@pytest.mark.parametrize("by", ["PrivateMessageSent", "NotificationCreated"])
async def test_what_the_recipient_has_received_is_delivered_and_announced_once(
    world: World, ana: Person, ben: Person, by: str
) -> None:
    message_id = await world.direct_message(ana, ben)
    assert (await message(ana, ben))["delivered_at"] is None
    events = await recorded(world)

    for _ in range(2):
        assert (await tell(world, delivered(events[by], ben))).status_code == 200
    assert (await tell(world, *(delivered(each, ben) for each in events.values()))).status_code == 200

    shown = await message(ana, ben)
    assert (shown["delivered_at"] is not None, shown["is_read"], shown["read_at"]) == (True, False, None)
    (await world.broadcasts()).assert_broadcast(
        MessageDelivered,
        on=f"private-user.{ana.id}",
        times=1,
        where=lambda data: (
            data["user"] == {"id": ben.id, "name": "Ben"}
            and data["message"]["id"] == message_id
            and data["message"]["delivered_at"] == shown["delivered_at"]
        ),
    )


async def test_several_messages_of_a_webhook_are_delivered_together(world: World, ana: Person, ben: Person) -> None:
    for text in ("one", "two", "three"):
        await world.direct_message(ana, ben, text)
    rows = await world.rows("SELECT id FROM recorded_events WHERE receipts")

    await tell(world, *(delivered(event_id, ben) for (event_id,) in rows))

    history = (await ana.get(f"/api/chat/messages/private/{ben.id}")).json()
    assert [each["delivered_at"] is not None for each in history] == [True] * 3
    (await world.broadcasts()).assert_broadcast(MessageDelivered, times=3)


async def test_reports_about_others_or_other_events_deliver_nothing(world: World, ana: Person, ben: Person) -> None:
    cyd = await world.person("Cyd")
    await ana.post("/api/chat/messages", {"message": "to all"})
    await world.direct_message(ana, ben)
    ids = [event_id for (event_id,) in await world.rows("SELECT id FROM recorded_events ORDER BY id")]
    asked = await recorded(world)
    direct = asked["PrivateMessageSent"]
    strange = [
        delivered(direct, ana),
        delivered(direct, cyd),
        *(delivered(event_id, ben) for event_id in ids if event_id not in asked.values()),
        delivered(9_999_999, ben),
        delivered(direct, ben) | {"id": str(direct)},
        delivered(direct, ben) | {"id": "order-7"},
        delivered(direct, ben) | {"user_id": "0"},
        delivered(direct, ben) | {"user_id": "guest"},
        delivered(direct, ben) | {"id": None},
    ]

    assert (await tell(world, *strange)).status_code == 200

    shown = await message(ana, ben)
    assert shown["delivered_at"] is None
    (await world.broadcasts()).assert_not_broadcast(MessageDelivered)


async def test_what_is_read_has_been_delivered(world: World, ana: Person, ben: Person) -> None:
    first = await world.direct_message(ana, ben)
    await ben.post(f"/api/chat/messages/{first}/read")
    read = await message(ana, ben)
    assert read["delivered_at"] == read["read_at"] is not None

    await world.direct_message(ana, ben, "again")
    await ben.post(f"/api/chat/messages/private/{ana.id}/read")
    assert (await message(ana, ben))["delivered_at"] is not None

    await tell(world, delivered((await recorded(world))["PrivateMessageSent"], ben))
    (await world.broadcasts()).assert_not_broadcast(MessageDelivered)


async def test_reading_keeps_the_time_of_the_delivery(world: World, ana: Person, ben: Person) -> None:
    message_id = await world.direct_message(ana, ben)
    await tell(world, delivered((await recorded(world))["NotificationCreated"], ben))
    before = await message(ana, ben)

    await ben.post(f"/api/chat/messages/{message_id}/read")

    after = await message(ana, ben)
    assert after["delivered_at"] == before["delivered_at"] < after["read_at"]
