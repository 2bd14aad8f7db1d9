"""A member who leaves a presence channel and rejoins within one loop turn is not announced."""

from __future__ import annotations

import json
from typing import Any

from kit.client import Client, connected
from kit.engines import Between
from kit.realtime import KEY, an_app, realtime_server
from kit.simultaneous_joins import flap, in_one_piece, subscription
from kit.waiting import eventually
from smartlink.server.run.lifecycle import RealtimeServer

ROOM = "presence-room"


async def ids(client: Client) -> list[str]:
    state = json.loads((await client.expect("pusher_internal:subscription_succeeded"))["data"])
    found: list[str] = state["presence"]["ids"]
    return sorted(found)


async def change(client: Client) -> tuple[str, dict[str, Any]]:
    message = await client.receive()
    return message["event"].removeprefix("pusher_internal:member_"), json.loads(message["data"])


async def meet(watcher: Client, member: Client) -> None:
    await watcher.subscribe(ROOM, {"user_id": "1"})
    await member.subscribe(ROOM, {"user_id": "2"})
    assert (await change(watcher))[0] == "added"


async def test_rejoining_within_a_loop_turn_is_not_announced(server: RealtimeServer) -> None:
    async with connected(server.port) as watcher, connected(server.port) as member:
        await meet(watcher, member)
        flap(member, ROOM, "2", times=10)
        for _ in range(10):
            assert await ids(member) == ["1", "2"]
        assert await watcher.is_quiet()

        # It is there as before: it hears each event once, and its leave is told.
        watcher.send("client-hello", {}, channel=ROOM)
        assert (await member.receive())["event"] == "client-hello"
        assert await member.is_quiet()
        member.send("pusher:unsubscribe", {"channel": ROOM})
        assert await change(watcher) == ("removed", {"user_id": "2"})
        watcher.send("client-hello", {}, channel=ROOM)
        assert await watcher.is_quiet()
        assert await member.is_quiet()


async def test_rejoining_as_another_member_is_announced(server: RealtimeServer) -> None:
    async with connected(server.port) as watcher, connected(server.port) as member:
        await meet(watcher, member)
        flap(member, ROOM, "3")
        assert await ids(member) == ["1", "3"]
        assert await change(watcher) == ("removed", {"user_id": "2"})
        assert await change(watcher) == ("added", {"user_id": "3", "user_info": {}})
        flap(member, ROOM, "3", name="Cy")
        assert await change(watcher) == ("removed", {"user_id": "3"})
        assert await change(watcher) == ("added", {"user_id": "3", "user_info": {"name": "Cy"}})
        assert await watcher.is_quiet()


async def test_a_member_whose_rejoin_is_refused_has_left(server: RealtimeServer) -> None:
    async with connected(server.port) as watcher, connected(server.port) as member:
        await meet(watcher, member)
        with in_one_piece(member):
            member.send("pusher:unsubscribe", {"channel": ROOM})
            member.send("pusher:subscribe", subscription(member, ROOM, "2") | {"auth": f"{KEY}:{'0' * 64}"})
        await member.expect("pusher:subscription_error")
        assert await change(watcher) == ("removed", {"user_id": "2"})
        assert (await server.node.presence.count("1001", ROOM)).users == 1


async def test_leaving_and_disconnecting_announces_one_leave(server: RealtimeServer) -> None:
    async with connected(server.port) as watcher, connected(server.port) as member:
        await meet(watcher, member)
        with in_one_piece(member):
            member.send("pusher:unsubscribe", {"channel": ROOM})
            member.send_frame(8)
        assert await change(watcher) == ("removed", {"user_id": "2"})
        await eventually(lambda: server.node.hub.count("1001") == 1)
        assert await watcher.is_quiet()


async def test_events_between_leave_and_rejoin_reach_only_others(server: RealtimeServer) -> None:
    async with connected(server.port) as watcher, connected(server.port) as member:
        await meet(watcher, member)
        connection: Any = server.node.hub.connection("1001", member.socket_id)
        leave = {"event": "pusher:unsubscribe", "data": {"channel": ROOM}}
        connection.receive_text(json.dumps(leave).encode())
        await server.node.publish(an_app(), ROOM, b'{"event":"between","channel":"presence-room","data":"{}"}')
        back = {"event": "pusher:subscribe", "data": subscription(member, ROOM, "2")}
        connection.receive_text(json.dumps(back).encode())

        assert await ids(member) == ["1", "2"]
        assert (await watcher.receive())["event"] == "between"
        assert await watcher.is_quiet()
        assert await member.is_quiet()


async def test_rejoining_may_wait_for_an_engine() -> None:
    between = Between()
    async with (
        realtime_server(engines=between.engines()) as server,
        connected(server.port) as watcher,
        connected(server.port) as member,
    ):
        await meet(watcher, member)
        between.joining.shut()
        flap(member, ROOM, "2", times=3)
        await eventually(lambda: between.joining.waiting == 1)
        assert await watcher.is_quiet()
        between.joining.open()
        for _ in range(3):
            assert await ids(member) == ["1", "2"]
        member.send("pusher:unsubscribe", {"channel": ROOM})
        assert await change(watcher) == ("removed", {"user_id": "2"})
