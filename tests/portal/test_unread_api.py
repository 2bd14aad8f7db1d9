"""What is unread, per room: counted exactly, the same on all devices, and told to all of them."""

from __future__ import annotations

from typing import Any

from kit.portal import Person, World
from smartlink.broadcasting import PrivateChannel
from smartlink.portal.chat.events import MessageRead, UnreadChanged


async def say(person: Person, text: str = "Hello") -> int:
    message_id: int = (await person.post("/api/chat/messages", {"message": text})).json()["id"]
    return message_id


async def unread(person: Person) -> dict[int | None, tuple[int, int | None]]:
    """The number of unread messages and the first of them, by room."""
    answer = await person.get("/api/chat/unread")
    assert answer.status_code == 200, answer.text
    return {room["peer_id"]: (room["unread_count"], room["first_unread_id"]) for room in answer.json()}


async def read(person: Person, peer_id: int | None, last_read_id: int) -> Any:
    answer = await person.post("/api/chat/read", {"peer_id": peer_id, "last_read_id": last_read_id})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_general_begins_at_its_end_and_counts_what_others_say(ana: Person, ben: Person) -> None:
    await say(ben, "before Ana came")
    assert await unread(ana) == {None: (0, None)}

    first, second = await say(ben), await say(ben)
    await say(ana, "not unread to herself")

    assert await unread(ana) == {None: (2, first)}
    assert (await read(ana, None, first))["unread_count"] == 1
    assert await unread(ana) == {None: (1, second)}


async def test_reading_never_goes_back_nor_past_what_was_written(ana: Person, ben: Person) -> None:
    await unread(ana)
    first, last = await say(ben), await say(ben)

    await read(ana, None, 2**63 - 1)
    await read(ana, None, first)
    assert await unread(ana) == {None: (0, None)}

    assert await say(ben) > last
    assert (await unread(ana))[None][0] == 1


async def test_reading_part_of_a_conversation_leaves_the_rest_unread(world: World, ana: Person, ben: Person) -> None:
    ids = [await world.direct_message(ben, ana, str(number)) for number in range(4)]

    answer = await read(ana, ben.id, ids[1])

    assert answer == {"peer_id": ben.id, "unread_count": 2, "first_unread_id": ids[2], "last_message_id": ids[3]}
    assert (await unread(ana))[ben.id] == (2, ids[2])
    assert (await ana.get("/api/notifications?unread=1")).headers["x-unread-count"] == "2"
    told = await world.broadcasts()
    told.assert_broadcast(MessageRead, on=PrivateChannel(f"user.{ben.id}"), times=2)
    told.assert_broadcast(
        UnreadChanged, on=PrivateChannel(f"user.{ana.id}"), times=1, where=lambda data: data["rooms"] == [answer]
    )


async def test_a_conversation_marked_as_unread_stays_read_to_its_sender(world: World, ana: Person, ben: Person) -> None:
    ids = [await world.direct_message(ben, ana, str(number)) for number in range(3)]
    await read(ana, ben.id, ids[-1])

    assert (await ana.post(f"/api/chat/messages/{ids[1]}/unread")).json()["unread_count"] == 2

    assert (await unread(ana))[ben.id] == (2, ids[1])
    assert (await ana.get("/api/chat/conversations")).json()[0]["unread_count"] == 2
    assert all(row["is_read"] for row in (await ben.get(f"/api/chat/messages/private/{ana.id}")).json())
    new = await world.direct_message(ben, ana, "one more")
    assert (await unread(ana))[ben.id] == (3, ids[1])

    await read(ana, ben.id, ids[2])
    assert (await unread(ana))[ben.id] == (1, new)
    await ana.post(f"/api/chat/messages/{new}/read")
    assert ben.id not in await unread(ana)
    (await world.broadcasts()).assert_broadcast(MessageRead, times=4)


async def test_general_can_be_marked_as_unread_from_a_message(ana: Person, ben: Person) -> None:
    first, _ = await say(ben), await say(ben)
    await unread(ana)

    assert (await ana.post(f"/api/chat/messages/{first}/unread")).status_code == 200

    assert await unread(ana) == {None: (2, first)}


async def test_reading_again_announces_nothing_more(world: World, ana: Person, ben: Person) -> None:
    await unread(ana)
    last = await say(ben)

    for _ in range(3):
        await read(ana, None, last)

    (await world.broadcasts()).assert_broadcast(UnreadChanged, times=1)


async def test_counts_are_exact_up_to_a_hundred(world: World, ana: Person, ben: Person) -> None:
    await unread(ana)
    await say(ben)
    copies = (
        "INSERT INTO chat_messages (user_id, message, is_read, created_at, updated_at) "
        "SELECT user_id, message, is_read, created_at, updated_at FROM chat_messages"
    )
    counts = []
    for _ in range(8):
        counts.append((await unread(ana))[None][0])
        await world.execute(copies)

    assert counts == [1, 2, 4, 8, 16, 32, 64, 100]


async def test_only_ones_own_rooms_can_be_read(ana: Person, ben: Person) -> None:
    for peer_id in (ana.id, 999_999):
        answer = await ana.post("/api/chat/read", {"peer_id": peer_id, "last_read_id": 1})
        assert (answer.status_code, answer.json()) == (404, {"message": "Not found."})
