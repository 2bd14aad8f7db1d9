"""Editing and deleting messages: who may, in which order, and where the text is gone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kit.portal import Person, World, payloads
from smartlink.broadcasting import Channel, PrivateChannel
from smartlink.portal.chat.changes import MAX_EDITS
from smartlink.portal.chat.events import MessageDeleted, MessageUpdated


async def said(person: Person, text: str = "first") -> int:
    answer = await person.post("/api/chat/messages", {"message": text})
    assert answer.status_code == 201, answer.text
    message_id: int = answer.json()["id"]
    return message_id


async def edit(person: Person, message_id: int, text: str, **options: Any) -> Any:
    return await person.patch(f"/api/chat/messages/{message_id}", {"message": text}, **options)


async def delete(person: Person, message_id: int) -> Any:
    return await person.delete(f"/api/chat/messages/{message_id}")


async def test_an_edited_message_says_so_everywhere(world: World, ana: Person, ben: Person) -> None:
    message_id = await said(ana)

    answer = await edit(ana, message_id, "second")

    body = answer.json()
    assert (answer.status_code, body["message"], body["version"], body["deleted_at"]) == (200, "second", 2, None)
    assert body["edited_at"] is not None
    [listed] = (await ben.get("/api/chat/messages")).json()
    assert (listed["message"], listed["edited_at"]) == ("second", body["edited_at"])
    assert [found["id"] for found in (await ben.get("/api/chat/search?q=second")).json()] == [message_id]
    assert (await ben.get("/api/chat/search?q=first")).json() == []
    sent = await world.broadcasts()
    sent.assert_broadcast(MessageUpdated, on=Channel("chat"), times=1, where=lambda data: data["message"] == listed)


async def test_the_same_text_changes_nothing(world: World, ana: Person) -> None:
    message_id = await said(ana)

    answer = await edit(ana, message_id, "first")

    assert (answer.status_code, answer.json()["version"], answer.json()["edited_at"]) == (200, 1, None)
    (await world.broadcasts()).assert_not_broadcast(MessageUpdated)


async def test_a_deleted_message_leaves_a_placeholder_and_no_text(world: World, ana: Person, ben: Person) -> None:
    words = "a secret that was said by mistake"
    message_id = await world.direct_message(ana, ben, words)
    await edit(ana, message_id, f"{words} twice")
    await ben.post(f"/api/chat/messages/{message_id}/read")

    answer = await delete(ana, message_id)

    body = answer.json()
    assert (answer.status_code, body["message"], body["version"]) == (200, "", 3)
    assert body["deleted_at"] is not None
    [row] = (await ben.get(f"/api/chat/messages/private/{ana.id}")).json()
    assert (row["id"], row["message"], row["deleted_at"]) == (message_id, "", body["deleted_at"])
    low, high = sorted((ana.id, ben.id))
    (await world.broadcasts()).assert_broadcast(MessageDeleted, on=PrivateChannel(f"chat.{low}.{high}"), times=1)
    for person, peer in ((ana, ben), (ben, ana)):
        paths = [
            f"/api/chat/messages/private/{peer.id}", "/api/chat/conversations", "/api/chat/search?q=secret",
            "/api/notifications", f"/api/events?channel=private-chat.{low}.{high}",
            f"/api/events?channel=private-user.{person.id}",
        ]  # fmt: skip
        for path in paths:
            shown = await person.get(path)
            assert (shown.status_code, "secret" in shown.text) == (200, False), path
    events = (await ben.get(f"/api/events?channel=private-chat.{low}.{high}")).json()["events"]
    assert [event["event"].rpartition("\\")[2] for event in events if "Typing" not in event["event"]] == [
        "PrivateMessageSent", "MessageUpdated", "MessageDeleted",
    ]  # fmt: skip


async def test_deleting_again_changes_nothing(world: World, ana: Person) -> None:
    message_id = await said(ana)

    answers = await asyncio.gather(*(delete(ana, message_id) for _ in range(5)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    (await world.broadcasts()).assert_broadcast(MessageDeleted, times=1)


async def test_others_see_what_is_not_theirs_to_change(world: World, ana: Person, ben: Person, eve: Person) -> None:
    in_general, to_ben = await said(ana), await world.direct_message(ana, ben)
    root = await world.person("Root", is_admin=True)
    before = await world.rows("SELECT * FROM chat_messages")

    for change in (lambda who, which: edit(who, which, "mine"), delete):
        assert (await change(eve, in_general)).status_code == 403
        assert (await change(root, in_general)).status_code == 403
        assert (await change(ben, to_ben)).status_code == 403
        for stranger in (eve, root):
            answer = await change(stranger, to_ben)
            assert (answer.status_code, answer.json()) == (404, {"message": "Not found."})
        assert (await change(eve, 999_999)).status_code == 404

    assert await world.rows("SELECT * FROM chat_messages") == before
    sent = await world.broadcasts()
    sent.assert_not_broadcast(MessageUpdated)
    sent.assert_not_broadcast(MessageDeleted)


async def test_concurrent_edits_have_one_order_for_all(world: World, ana: Person) -> None:
    message_id = await said(ana)

    answers = await asyncio.gather(*(edit(ana, message_id, f"text {number}") for number in range(8)))

    assert {answer.status_code for answer in answers} == {200}
    announced = [event["message"] for event in payloads(await world.broadcasts(), "MessageUpdated")]
    assert [message["version"] for message in announced] == list(range(2, 10))
    answered = {answer.json()["version"]: answer.json()["message"] for answer in answers}
    assert answered == {message["version"]: message["message"] for message in announced}
    [listed] = (await ana.get("/api/chat/messages")).json()
    assert (listed["version"], listed["message"]) == (9, announced[-1]["message"])


async def test_an_edit_against_a_delete_never_brings_the_text_back(world: World, ana: Person) -> None:
    for _ in range(5):
        message_id = await said(ana)

        edited, deleted, _ = await asyncio.gather(
            edit(ana, message_id, "late"), delete(ana, message_id), edit(ana, message_id, "later")
        )

        assert deleted.status_code == 200
        assert edited.status_code in (200, 409)
        [listed] = [row for row in (await ana.get("/api/chat/messages")).json() if row["id"] == message_id]
        assert (listed["message"], listed["deleted_at"]) == ("", deleted.json()["deleted_at"])
        refused = await edit(ana, message_id, "again")
        assert (refused.status_code, refused.json()["version"]) == (409, listed["version"])
        events = [
            (envelope.name.rpartition("\\")[2], json.loads(envelope.payload)["message"]["version"])
            for envelope in (await world.broadcasts()).sent
            if envelope.name.endswith(("Updated", "Deleted"))
            and json.loads(envelope.payload)["message"]["id"] == message_id
        ]
        assert events[-1] == ("MessageDeleted", listed["version"])
        assert [version for _, version in events] == list(range(2, listed["version"] + 1))


async def test_a_repeated_edit_is_done_once(world: World, ana: Person) -> None:
    message_id = await said(ana)
    keyed = {"headers": {"idempotency-key": "k1"}}

    first = await edit(ana, message_id, "mine", **keyed)
    await edit(ana, message_id, "from another device")
    again = await edit(ana, message_id, "mine", **keyed)

    assert (again.status_code, again.text) == (200, first.text)
    [listed] = (await ana.get("/api/chat/messages")).json()
    assert (listed["message"], listed["version"]) == ("from another device", 3)
    other = await edit(ana, message_id, "something else", **keyed)
    assert (other.status_code, set(other.json()["errors"])) == (422, {"Idempotency-Key"})


async def test_repeats_do_not_bring_a_deleted_text_back(world: World, ana: Person) -> None:
    sent = {"headers": {"idempotency-key": "k1"}}
    message_id = (await ana.post("/api/chat/messages", {"message": "secret"}, **sent)).json()["id"]
    edited = {"headers": {"idempotency-key": "k2"}}
    await edit(ana, message_id, "secret still", **edited)
    await delete(ana, message_id)

    answers = [
        await ana.post("/api/chat/messages", {"message": "secret"}, **sent),
        await edit(ana, message_id, "secret still", **edited),
    ]

    assert [(answer.status_code, answer.json()["id"], answer.json()["message"]) for answer in answers] == [
        (201, message_id, ""), (200, message_id, ""),
    ]  # fmt: skip


async def test_repeated_edits_are_not_counted_as_messages(world: World, ana: Person) -> None:
    message_id = await said(ana)
    world.portal.limits.allowed = dict(world.portal.limits.allowed) | {"message": (2, 3600.0)}
    keyed = {"headers": {"idempotency-key": "k"}}

    answers = [await edit(ana, message_id, "x", **keyed) for _ in range(10)]

    assert {answer.status_code for answer in answers} == {200}
    assert (await edit(ana, message_id, "y")).status_code == 429


async def test_admins_see_earlier_texts_in_general_chat_only(world: World, ana: Person, ben: Person) -> None:
    root = await world.person("Root", is_admin=True)
    message_id = await said(ana)
    await edit(ana, message_id, "second")
    await delete(ana, message_id)
    to_ben = await world.direct_message(ana, ben)
    await edit(ana, to_ben, "changed")

    versions = (await root.get(f"/api/admin/messages/{message_id}/versions")).json()

    assert [(one["version"], one["message"]) for one in versions] == [(1, "first"), (2, "second"), (3, "")]
    assert [one["replaced_at"] is None for one in versions] == [False, False, True]
    assert (await root.get(f"/api/admin/messages/{to_ben}/versions")).status_code == 404
    assert (await ana.get(f"/api/admin/messages/{message_id}/versions")).status_code == 403


async def test_the_number_of_edits_is_limited(world: World, ana: Person) -> None:
    message_id = await said(ana)
    await world.execute("UPDATE chat_messages SET version = :n", n=MAX_EDITS + 1)

    answer = await edit(ana, message_id, "once more")

    assert (answer.status_code, set(answer.json()["errors"])) == (422, {"message"})
    assert (await delete(ana, message_id)).status_code == 200


async def test_a_token_to_read_cannot_change_anything(world: World, ana: Person) -> None:
    message_id = await said(ana)
    token = (await ana.post("/api/tokens", {"name": "reads", "abilities": ["chat:read"]})).json()["token"]
    reader = world.client(authorization=f"Bearer {token}")

    answers = [
        await reader.patch(f"/api/chat/messages/{message_id}", json={"message": "x"}),
        await reader.delete(f"/api/chat/messages/{message_id}"),
    ]

    assert [answer.status_code for answer in answers] == [403, 403]


@pytest.mark.parametrize("payload", [{"message": "text"}, {"message": {"id": "x"}}, {"notification": 1}, {"data": []}])
async def test_events_written_by_hand_stay_as_they_are(world: World, ana: Person, payload: Any) -> None:
    root = await world.person("Root", is_admin=True)
    body = {"channel": "chat", "event": "Tried", "data": payload}
    assert (await root.post("/api/admin/broadcast", body)).status_code == 200

    [event] = (await ana.get("/api/events?channel=chat")).json()["events"]

    assert {key: event["data"][key] for key in payload} == payload
