"""Chat over HTTP: responses, storage and announcements of each endpoint."""

from __future__ import annotations

import asyncio

import pytest

from kit.portal import Person, World
from smartlink.broadcasting import Channel, PrivateChannel
from smartlink.portal.chat.events import MessageRead, MessageSent, PrivateMessageSent, UserTyping
from smartlink.portal.notifications.events import NotificationCreated

MESSAGE_KEYS = {
    "id", "user_id", "recipient_id", "message", "version", "edited_at", "deleted_at", "is_read", "read_at",
    "delivered_at", "created_at", "updated_at", "user",
}  # fmt: skip


async def test_user_can_send_typing_indicator(world: World, ana: Person) -> None:
    answer = await ana.post("/api/chat/typing", {"typing": True}, headers={"x-socket-id": "11.22"})

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    sent = await world.broadcasts()
    expected = {"user": {"id": ana.id, "name": "Ana"}, "typing": True}
    sent.assert_broadcast(UserTyping, on=Channel("chat"), to_others=True, times=1, where=lambda data: data == expected)
    assert sent.sent[0].socket_id == "11.22"


async def test_user_can_mark_message_as_read(world: World, ana: Person, ben: Person) -> None:
    message_id = await world.direct_message(ben, ana)

    answer = await ana.post(f"/api/chat/messages/{message_id}/read")

    assert answer.status_code == 200
    assert answer.json()["is_read"] is True
    assert answer.json()["read_at"] is not None
    assert [bool(row.is_read) for row in await world.rows("SELECT is_read FROM chat_messages")] == [True]
    (await world.broadcasts()).assert_broadcast(
        MessageRead,
        on=PrivateChannel(f"user.{ben.id}"),
        times=1,
        where=lambda data: (
            set(data) == {"eventId", "message", "user"} and data["user"] == {"id": ana.id, "name": "Ana"}
        ),
    )


async def test_reading_a_message_again_announces_nothing_more(world: World, ana: Person, ben: Person) -> None:
    message_id = await world.direct_message(ben, ana)

    answers = await asyncio.gather(*(ana.post(f"/api/chat/messages/{message_id}/read") for _ in range(5)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["read_at"] for answer in answers}) == 1
    (await world.broadcasts()).assert_broadcast(MessageRead, times=1)


async def test_user_can_get_online_users(world: World, ana: Person) -> None:
    await world.execute(
        "INSERT INTO user_presence (user_id, is_online, last_seen, created_at, updated_at)"
        " VALUES (:id, true, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)",
        id=ana.id,
    )

    answer = await ana.get("/api/chat/users/online")

    assert (answer.status_code, answer.json()) == (200, [{"id": ana.id, "name": "Ana"}])


async def test_user_can_send_private_message(world: World, ana: Person, ben: Person) -> None:
    answer = await ana.post("/api/chat/messages/private", {"recipient_id": ben.id, "message": "Private message"})

    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == MESSAGE_KEYS | {"recipient"}
    assert body["user"] == {"id": ana.id, "name": "Ana"}
    assert body["recipient"] == {"id": ben.id, "name": "Ben"}
    rows = await world.rows("SELECT user_id, recipient_id, message FROM chat_messages")
    assert rows == [(ana.id, ben.id, "Private message")]
    sent = await world.broadcasts()
    low, high = sorted((ana.id, ben.id))
    sent.assert_broadcast(
        PrivateMessageSent,
        on=PrivateChannel(f"chat.{low}.{high}"),
        to_others=True,
        times=1,
        where=lambda data: set(data) == {"eventId", "message"} and data["message"] == body,
    )
    sent.assert_broadcast(
        NotificationCreated,
        on=PrivateChannel(f"user.{ben.id}"),
        times=1,
        where=lambda data: (
            set(data) == {"eventId", "notification", "user"}
            and set(data["notification"]) == {"id", "type", "data", "read_at", "created_at"}
            and data["notification"]["data"]["sender"] == {"id": ana.id, "name": "Ana"}
        ),
    )


async def test_user_cannot_send_message_to_themselves(world: World, ana: Person) -> None:
    answer = await ana.post("/api/chat/messages/private", {"recipient_id": ana.id, "message": "To myself"})

    assert (answer.status_code, answer.json()) == (400, {"error": "Cannot send message to yourself"})
    (await world.broadcasts()).assert_nothing_broadcast()


async def test_an_unknown_recipient_is_named_in_the_errors(ana: Person) -> None:
    answer = await ana.post("/api/chat/messages/private", {"recipient_id": 10**15, "message": "Anybody?"})

    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {"recipient_id"}


async def test_a_general_message_has_exactly_its_keys_and_goes_to_others(world: World, ana: Person) -> None:
    answer = await ana.post("/api/chat/messages", {"message": "Hello"}, headers={"x-socket-id": "1.2"})

    assert answer.status_code == 201
    assert set(answer.json()) == MESSAGE_KEYS
    sent = await world.broadcasts()
    sent.assert_broadcast(
        MessageSent,
        on=Channel("chat"),
        to_others=True,
        times=1,
        where=lambda data: set(data) == {"eventId", "message"} and data["message"] == answer.json(),
    )


async def test_sending_ends_the_senders_typing(world: World, ana: Person) -> None:
    await ana.post("/api/chat/typing", {"typing": True})

    await ana.post("/api/chat/messages", {"message": "Done"})
    await ana.post("/api/chat/messages", {"message": "And more"})

    sent = await world.broadcasts()
    sent.assert_broadcast(UserTyping, times=1, where=lambda data: data["typing"] is False)


async def test_typing_to_one_user_is_sent_to_their_conversation_only(world: World, ana: Person, ben: Person) -> None:
    await ana.post("/api/chat/typing", {"typing": True, "recipient_id": ben.id})

    low, high = sorted((ana.id, ben.id))
    (await world.broadcasts()).assert_broadcast(UserTyping, on=PrivateChannel(f"chat.{low}.{high}"), times=1)
    assert len(world.broadcaster.sent) == 1


async def test_typing_is_limited_per_user(ana: Person, ben: Person) -> None:
    answers = [await ana.post("/api/chat/typing", {"typing": True}) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (await ben.post("/api/chat/typing", {"typing": True})).status_code == 200


async def test_messages_are_limited_per_user(ana: Person) -> None:
    answers = [await ana.post("/api/chat/messages", {"message": "again"}) for _ in range(21)]

    assert [answer.status_code for answer in answers] == [201] * 20 + [429]
    assert "retry-after" in answers[-1].headers


async def test_general_chat_pages_backwards_and_forwards(world: World, ana: Person, ben: Person) -> None:
    ids = [(await ana.post("/api/chat/messages", {"message": str(n)})).json()["id"] for n in range(5)]
    await world.direct_message(ana, ben, "not for all")

    async def listed(query: str) -> list[int]:
        return [message["id"] for message in (await ben.get(f"/api/chat/messages{query}")).json()]

    assert await listed("") == ids
    assert await listed("?limit=2") == ids[3:]
    assert await listed(f"?limit=2&before={ids[3]}") == ids[1:3]
    assert await listed(f"?limit=2&after={ids[0]}") == ids[1:3]


async def test_a_list_names_the_last_event_it_includes(world: World, ana: Person, ben: Person) -> None:
    await ana.post("/api/chat/messages", {"message": "one"})

    event_id = int((await ben.get("/api/chat/messages")).headers["x-event-id"])
    await ana.post("/api/chat/messages", {"message": "two"})
    gap = (await ben.get(f"/api/events?channel=chat&after={event_id}")).json()

    assert gap["complete"] is True
    assert [event["data"]["message"]["message"] for event in gap["events"]] == ["two"]
    assert gap["events"][0]["event"] == "App\\Events\\MessageSent"
    assert gap["events"][0]["data"]["eventId"] == gap["events"][0]["id"] > event_id


async def test_conversations_show_the_last_message_and_the_unread_count(
    world: World, ana: Person, ben: Person, eve: Person
) -> None:
    await world.direct_message(ben, ana, "first")
    await world.direct_message(ben, ana, "second")
    await world.direct_message(ana, eve, "to eve")

    conversations = (await ana.get("/api/chat/conversations")).json()

    assert [(c["user"]["name"], c["last_message"]["message"], c["unread_count"]) for c in conversations] == [
        ("Eve", "to eve", 0),
        ("Ben", "second", 2),
    ]
    assert set(conversations[0]) == {"user", "last_message", "unread_count"}


async def test_a_direct_conversation_is_visible_to_its_two_users_only(
    world: World, ana: Person, ben: Person, eve: Person
) -> None:
    ids = [await world.direct_message(*pair) for pair in ((ana, ben), (ben, ana), (ana, ben))]

    async def listed(who: Person, peer: Person, query: str = "") -> list[int]:
        return [message["id"] for message in (await who.get(f"/api/chat/messages/private/{peer.id}{query}")).json()]

    assert await listed(ana, ben) == await listed(ben, ana) == ids
    assert await listed(ana, ben, f"?limit=1&before={ids[2]}") == [ids[1]]
    assert await listed(eve, ana) == await listed(eve, ben) == []


async def test_reading_all_announces_each_message_once(world: World, ana: Person, ben: Person) -> None:
    for _ in range(3):
        await world.direct_message(ben, ana)

    for _ in range(2):
        assert (await ana.post(f"/api/chat/messages/private/{ben.id}/read")).status_code == 200

    (await world.broadcasts()).assert_broadcast(MessageRead, on=PrivateChannel(f"user.{ben.id}"), times=3)
    assert (await ana.get("/api/chat/conversations")).json()[0]["unread_count"] == 0


async def test_nobody_else_can_mark_a_message_as_read(world: World, ana: Person, ben: Person, eve: Person) -> None:
    message_id = await world.direct_message(ana, ben)
    public = (await ana.post("/api/chat/messages", {"message": "to all"})).json()["id"]

    answers = [await who.post(f"/api/chat/messages/{message_id}/read") for who in (ana, eve)]
    answers.append(await ben.post(f"/api/chat/messages/{public}/read"))

    assert [answer.status_code for answer in answers] == [404, 404, 404]


@pytest.mark.parametrize("endpoint", ["/api/chat/messages", "/api/chat/messages/private"])
async def test_concurrent_requests_with_one_idempotency_key_create_one_message(
    world: World, ana: Person, ben: Person, endpoint: str
) -> None:
    body = {"message": "once", "recipient_id": ben.id}

    answers = await asyncio.gather(*(ana.post(endpoint, body, headers={"idempotency-key": "k-1"}) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len(await world.rows("SELECT id FROM chat_messages")) == 1
    event = MessageSent if endpoint.endswith("messages") else PrivateMessageSent
    (await world.broadcasts()).assert_broadcast(event, times=1)


async def test_an_idempotency_key_belongs_to_its_user_and_its_request(world: World, ana: Person, ben: Person) -> None:
    key = {"idempotency-key": "shared"}
    await ana.post("/api/chat/messages", {"message": "mine"}, headers=key)

    assert (await ben.post("/api/chat/messages", {"message": "mine"}, headers=key)).status_code == 201
    assert (await ana.post("/api/chat/messages", {"message": "other"}, headers=key)).status_code == 422
    assert len(await world.rows("SELECT id FROM chat_messages")) == 2


async def test_a_thousand_emoji_arrive_and_one_more_does_not(world: World, ana: Person) -> None:
    assert (await ana.post("/api/chat/messages", {"message": "😀" * 1000})).status_code == 201
    assert (await ana.post("/api/chat/messages", {"message": "😀" * 1001})).status_code == 422
    assert (await ana.post("/api/chat/messages", {"message": "\x01" * 999 + "x"})).status_code == 201
    (await world.broadcasts()).assert_broadcast(MessageSent, times=2)
