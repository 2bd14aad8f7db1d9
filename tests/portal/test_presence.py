"""Online status follows connections, and changes are announced once."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from typing import Any

import httpx2
import msgspec
import pytest

from kit.portal import Person, World, ago
from kit.realtime import realtime_server
from smartlink.broadcasting import BroadcastSettings, PresenceChannel
from smartlink.portal.presence.events import UserJoined, UserLeft
from smartlink.protocol.signing import sign_webhook

_told = itertools.count()


async def tell(
    world: World, *events: dict[str, Any], secret: str = "app-secret", at_ms: int | None = None
) -> httpx2.Response:
    """What the realtime server tells, later than what it told before."""
    at_ms = int(time.time() * 1000) - 60_000 + next(_told) if at_ms is None else at_ms
    body = msgspec.json.encode({"time_ms": at_ms, "events": list(events)})
    headers = {"x-pusher-key": "app-key", "x-pusher-signature": sign_webhook(secret, body)}
    return await world.client().post("/webhooks/realtime", content=body, headers=headers)


def member(name: str, person: Person) -> dict[str, Any]:
    return {"name": f"member_{name}", "channel": "presence-chat", "user_id": str(person.id)}


async def online(person: Person) -> list[str]:
    return [profile["name"] for profile in (await person.get("/api/chat/users/online")).json()]


async def test_online_and_offline_are_stored_and_announced_once(world: World, ana: Person, ben: Person) -> None:
    for _ in range(2):
        assert (await tell(world, member("added", ben))).status_code == 200
    assert await online(ana) == ["Ben"]

    for _ in range(2):
        await tell(world, member("removed", ben))
    assert await online(ana) == []

    sent = await world.broadcasts()
    expected = {"id": ben.id, "name": "Ben"}
    for event in (UserJoined, UserLeft):
        sent.assert_broadcast(event, on=PresenceChannel("chat"), times=1, where=lambda data: data == expected)


async def test_a_webhook_older_than_ten_minutes_is_refused(world: World, ana: Person) -> None:
    now = int(time.time() * 1000)

    old = await tell(world, member("added", ana), at_ms=now - 601_000)
    recent = await tell(world, member("added", ana), at_ms=now - 540_000)

    assert (old.status_code, recent.status_code) == (422, 200)
    assert await online(ana) == ["Ana"]


async def test_a_repeated_or_late_webhook_does_not_change_presence(world: World, ana: Person, ben: Person) -> None:
    now = int(time.time() * 1000) - 10_000
    came, left = (member("added", ana), now), (member("removed", ana), now + 1)
    for event, at_ms in (came, left, came, left):
        await tell(world, event, at_ms=at_ms)
    assert await online(ana) == []

    # On its way for longer than what happened after it; with news of somebody else in it.
    await tell(world, member("removed", ben), at_ms=now + 3)
    await tell(world, member("added", ana), member("added", ben), at_ms=now + 2)

    assert await online(ana) == ["Ana"]
    (await world.broadcasts()).assert_broadcast(UserJoined, times=2)


async def test_a_webhook_from_before_the_sweep_changes_nothing_after_it(world: World, ana: Person) -> None:
    await world.portal.presence.correct({ana.id}, dt.datetime.now(dt.UTC))

    await tell(world, member("removed", ana))

    assert await online(ana) == ["Ana"]


async def test_a_clock_set_back_makes_no_webhook_late(world: World, ana: Person) -> None:
    await tell(world, member("added", ana), at_ms=int(time.time() * 1000) + 3_600_000)
    await tell(world, member("removed", ana), at_ms=int(time.time() * 1000) + 1_000)

    assert await online(ana) == []


async def test_a_batch_is_applied_in_order(world: World, ana: Person) -> None:
    await tell(world, member("added", ana), member("removed", ana), member("added", ana))

    assert await online(ana) == ["Ana"]
    assert [e.name.rpartition("\\")[2] for e in (await world.broadcasts()).sent] == [
        "UserJoined",
        "UserLeft",
        "UserJoined",
    ]


async def test_an_unsigned_webhook_is_refused(world: World, ana: Person) -> None:
    answer = await tell(world, member("added", ana), secret="wrong")

    assert answer.status_code == 401
    assert await online(ana) == []


@pytest.mark.parametrize("user_id", ["x", "", "01", "-1", "9223372036854775808", 7, None, [], "999999"])
async def test_members_that_are_not_users_are_ignored(world: World, ana: Person, user_id: object) -> None:
    event = {"name": "member_added", "channel": "presence-chat", "user_id": user_id}

    answer = await tell(world, event, {"name": "channel_occupied", "channel": "chat"}, member("added", ana))

    assert answer.status_code == 200
    assert await online(ana) == ["Ana"]


async def test_a_user_not_seen_for_five_minutes_is_not_listed(world: World, ana: Person) -> None:
    await tell(world, member("added", ana))
    await world.execute("UPDATE user_presence SET last_seen = '2020-01-01 00:00:00+00:00'" if "postgresql" in world.url
                        else "UPDATE user_presence SET last_seen = '2020-01-01 00:00:00.000000'")  # fmt: skip

    assert await online(ana) == []


async def test_the_sweep_corrects_presence_after_a_crash(world: World, ana: Person, ben: Person, eve: Person) -> None:
    await tell(world, member("added", ana), member("added", ben))

    await world.portal.presence.correct({ben.id, eve.id}, dt.datetime.now(dt.UTC))

    assert await online(ana) == ["Ben", "Eve"]
    sent = await world.broadcasts()
    sent.assert_broadcast(UserLeft, times=1, where=lambda data: data["id"] == ana.id)
    sent.assert_broadcast(UserJoined, times=3)


async def test_the_sweep_ignores_users_who_came_online_during_it(world: World, ana: Person) -> None:
    await tell(world, member("added", ana))

    await world.portal.presence.correct(set(), ago(seconds=5))

    assert await online(ana) == ["Ana"]


async def test_the_sweep_queries_the_realtime_server(database_url: str) -> None:
    async with realtime_server() as server:
        world = World(database_url, {"broadcast": BroadcastSettings(_env_file=None, reverb_port=server.port)})
        ana = await world.person("Ana")
        await tell(world, member("added", ana))

        assert await world.portal.sweep.run_once() is True

        assert await online(ana) == []
        await world.aclose()


async def test_an_unavailable_realtime_server_changes_nothing(database_url: str) -> None:
    world = World(database_url, {"broadcast": BroadcastSettings(_env_file=None, reverb_port=1)})
    ana = await world.person("Ana")
    await tell(world, member("added", ana))

    assert await world.portal.sweep.run_once() is False

    assert await online(ana) == ["Ana"]
    await world.aclose()
