"""Resumable sessions: a client that comes back gets what it missed, once and in order, or is told that it cannot."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.client import Client, connected, raw
from kit.cluster import Cluster, cluster
from kit.engines import Between
from kit.realtime import APP_ID, KEY, SECRET, call, realtime_server
from kit.waiting import eventually
from smartlink.protocol.signing import sign_channel
from smartlink.server.cluster.presence.base import Departure
from smartlink.server.core import client_sessions, resumption
from smartlink.server.core.resumption import Resumption
from smartlink.server.run.lifecycle import RealtimeServer


def a_token() -> str:
    return secrets.token_urlsafe(24)


async def publish(port: int, number: int, channel: str = "chat", **more: Any) -> None:
    event = {"name": "news", "channel": channel, "data": str(number)} | more
    answer = await call(port, "POST", f"/apps/{APP_ID}/events", json.dumps(event).encode())
    assert answer.status_code == 200, answer.text


async def news(client: Client, count: int) -> list[int]:
    return [int((await client.expect("news"))["data"]) for _ in range(count)]


async def resumed(client: Client, channel: str = "chat") -> list[int]:
    """Subscribe again, and return the numbers of the events that are replayed."""
    await client.subscribe(channel)
    answer = await client.expect("pusher:resume_success")
    assert answer["channel"] == channel
    return await news(client, json.loads(answer["data"])["replayed"])


def confirmed(server: RealtimeServer) -> list[int]:
    """The positions that the server's sessions have confirmed."""
    sessions: Resumption = server.node.resumption
    return [position for followers in sessions._followers.values() for position in followers.values()]


async def test_events_to_a_user_who_signs_in_again_come_after_those_that_were_missed() -> None:
    token, channel = a_token(), "#server-to-user-7"
    async with realtime_server() as server:
        async with connected(server.port, session=token) as client:
            await client.sign_in("7")
            await client.subscribe(channel)
        await publish(server.port, 1, channel)
        async with connected(server.port, session=token) as client:
            await client.sign_in("7")
            await publish(server.port, 2, channel)
            assert await resumed(client, channel) == [1, 2]
            await publish(server.port, 3, channel)
            assert await news(client, 1) == [3]
            client.send("pusher:unsubscribe", {"channel": channel})
            await publish(server.port, 4, channel)
            assert await news(client, 1) == [4]


async def test_a_session_too_large_to_be_kept_is_told_of_each_channel_that_is_not() -> None:
    token = a_token()
    channels = [f"{number:04d}-{'x' * 150}" for number in range(300)]
    async with realtime_server() as server:
        async with connected(server.port, session=token) as client:
            for channel in channels:
                await client.subscribe(channel)
        async with connected(server.port, session=token) as client:
            assert await resumed(client, channels[0]) == []
            await client.subscribe(channels[-1])
            assert json.loads((await client.expect("pusher:resume_failed"))["data"]) == {"reason": "unknown"}


async def until_confirmed(server: RealtimeServer, client: Client) -> None:
    """Answer the barrier behind what was delivered."""
    before = confirmed(server)
    while True:
        opcode, payload = await client.frame()
        if opcode == 1 and json.loads(payload)["event"] == "pusher:ping":
            client.send("pusher:pong", {})
            await eventually(lambda: confirmed(server) != before)
            return


async def test_a_client_that_comes_back_gets_what_it_missed_and_then_what_is_new() -> None:
    async with realtime_server() as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
        for number in range(5):
            await publish(server.port, number)
        async with connected(server.port, session=token) as client:
            assert await resumed(client) == [0, 1, 2, 3, 4]
            await publish(server.port, 5)
            assert await news(client, 1) == [5]
            assert await client.is_quiet()


async def test_what_was_confirmed_is_not_sent_again() -> None:
    async with realtime_server() as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
            await publish(server.port, 0)
            assert await news(client, 1) == [0]
            await until_confirmed(server, client)
            await publish(server.port, 1)
            assert await news(client, 1) == [1]
        await publish(server.port, 2)
        async with connected(server.port, session=token) as client:
            assert await resumed(client) == [1, 2]


async def test_what_was_replayed_is_confirmed_too() -> None:
    async with realtime_server() as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
        await publish(server.port, 0)
        async with connected(server.port, session=token) as client:
            assert await resumed(client) == [0]
            await until_confirmed(server, client)
        async with connected(server.port, session=token) as client:
            assert await resumed(client) == []


async def test_a_client_without_a_session_sees_nothing_of_it() -> None:
    async with realtime_server() as server:
        async with connected(server.port, session=a_token()) as other, connected(server.port) as client:
            await other.subscribe("chat")
            await client.subscribe("chat")
            await publish(server.port, 0)
            assert await news(client, 1) == [0]
        await publish(server.port, 1)
        async with connected(server.port) as client:
            await client.subscribe("chat")
            assert await client.is_quiet()


async def test_events_beyond_what_is_kept_are_a_gap() -> None:
    async with realtime_server() as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
        for number in range(101):
            await publish(server.port, number)
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
            answer = await client.expect("pusher:resume_failed")
            assert (answer["channel"], json.loads(answer["data"])) == ("chat", {"reason": "gap"})
            await publish(server.port, 101)
            assert await news(client, 1) == [101]


@pytest.mark.parametrize(("parameter", "query"), [("", "protocol=7&fresh=0"), (";fresh=0", "protocol=7")])
async def test_a_session_that_is_not_known_is_told_only_to_those_who_had_one(parameter: str, query: str) -> None:
    async with realtime_server() as server:
        async with connected(server.port, session=a_token()) as client:
            await client.subscribe("chat")
            assert await client.is_quiet()
        async with connected(server.port, session=a_token() + parameter, query=query) as client:
            await client.subscribe("chat")
            answer = await client.expect("pusher:resume_failed")
            assert json.loads(answer["data"]) == {"reason": "unknown"}


async def test_a_channel_that_was_left_begins_anew() -> None:
    async with realtime_server() as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
            client.send("pusher:unsubscribe", {"channel": "chat"})
            assert await client.is_quiet()
        await publish(server.port, 0)
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
            assert await client.is_quiet()


async def test_live_events_and_those_that_left_the_client_out_are_not_replayed() -> None:
    async with realtime_server() as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("private-chat")
            own = client.socket_id
        await publish(server.port, 0, "private-chat", live=True)
        await publish(server.port, 1, "private-chat", socket_id=own)
        await publish(server.port, 2, "private-chat")
        async with connected(server.port, session=token) as client:
            assert await resumed(client, "private-chat") == [2]
            own_now = client.socket_id
        await publish(server.port, 3, "private-chat", socket_id=own)
        await publish(server.port, 4, "private-chat", socket_id=own_now)
        async with connected(server.port, session=token) as client:
            assert await resumed(client, "private-chat") == [2], "not confirmed, so it comes again"


async def test_the_token_alone_opens_nothing() -> None:
    async with realtime_server() as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("private-chat")
        await publish(server.port, 0, "private-chat")
        async with connected(server.port, session=token) as client:
            client.send("pusher:subscribe", {"channel": "private-chat"})
            assert (await client.expect("pusher:subscription_error"))["data"]["status"] == 401
            assert await client.is_quiet()
            assert await resumed(client, "private-chat") == [0]


async def test_the_signature_for_an_earlier_socket_is_a_ticket_for_the_session_only() -> None:
    async with realtime_server() as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("private-chat")
            auth = sign_channel(KEY, SECRET, client.socket_id, "private-chat", None)
        ticket = {"channel": "private-chat", "auth": auth}
        for other in (None, a_token()):
            async with connected(server.port, session=other) as client:
                client.send("pusher:subscribe", ticket)
                assert (await client.expect("pusher:subscription_error"))["data"]["status"] == 401
        for _ in range(2):
            async with connected(server.port, session=token) as client:
                client.send("pusher:subscribe", ticket)
                await client.expect("pusher_internal:subscription_succeeded")
                await client.expect("pusher:resume_success")


async def test_a_second_socket_takes_the_session_over_and_the_first_goes_on_without() -> None:
    async with realtime_server() as server:
        token = a_token()
        async with connected(server.port, session=token) as first:
            await first.subscribe("chat")
            async with connected(server.port, session=token) as second:
                assert await resumed(second) == []
                await publish(server.port, 0)
                assert await news(first, 1) == [0]
                assert await news(second, 1) == [0]
            assert await first.is_quiet()
        async with connected(server.port, session=token) as client:
            assert await resumed(client) == [0]


@pytest.mark.parametrize(
    "token", ["short", "x" * 65, "a" * 21, "a" * 30 + "%2F", "a." * 15, "", "a" * 30 + ";", "a" * 30 + ";fresh=1"]
)
async def test_a_malformed_token_is_4005(token: str) -> None:
    async with realtime_server() as server, connected(server.port, session=token) as client:
        assert client.refusal["code"] == 4005  # type: ignore[attr-defined]


async def test_over_nodes_a_session_goes_on_where_its_client_comes_back() -> None:
    async with cluster(2) as nodes:
        one, two = nodes.nodes
        token = a_token()
        async with connected(one.port, session=token) as client:
            await client.subscribe("presence-chat", {"user_id": "7"})
            await publish(two.port, 0, "presence-chat")
            assert await news(client, 1) == [0]
        await publish(one.port, 1, "presence-chat")
        async with connected(two.port, session=token) as client:
            await client.subscribe("presence-chat", {"user_id": "7"})
            answer = await client.expect("pusher:resume_success")
            assert await news(client, json.loads(answer["data"])["replayed"]) == [0, 1]
            await publish(one.port, 2, "presence-chat")
            assert await news(client, 1) == [2]


async def test_a_socket_whose_session_went_to_another_node_goes_on_without_it() -> None:
    async with cluster(2) as nodes:
        one, two = nodes.nodes
        token = a_token()
        async with connected(one.port, session=token) as first:
            await first.subscribe("chat")
            async with connected(two.port, session=token) as second:
                assert await resumed(second) == []
                await publish(one.port, 0)
                assert await news(first, 1) == [0]
                assert await news(second, 1) == [0]
                await first.subscribe("more")
                await eventually(lambda: len(one.node.resumption) == 0)
            await eventually(lambda: len(two.node.resumption) == 0)
        async with connected(one.port, session=token) as client:
            assert await resumed(client) == [0]


async def test_while_nobody_can_tell_whether_a_session_is_known_its_client_is_told_to_load_anew() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
        between.is_away = True
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
            assert json.loads((await client.expect("pusher:resume_failed"))["data"]) == {"reason": "unknown"}
        between.is_away = False


async def test_nothing_is_left_of_sessions_that_ended() -> None:
    async with realtime_server() as server:
        for _ in range(20):
            async with connected(server.port, session=a_token()) as client:
                await client.subscribe("chat")
                await publish(server.port, 0)
        await eventually(lambda: len(server.node.resumption) == 0)
        sessions = server.node.resumption
        assert not any((sessions._followers, sessions._active, sessions._owing, sessions._unsaved))


async def test_a_client_that_missed_much_on_many_channels_gets_all_of_it() -> None:
    channels = [f"busy-{number}" for number in range(8)]
    async with realtime_server() as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            for channel in channels:
                await client.subscribe(channel)
        for channel in channels:
            for number in range(100):
                await publish(server.port, number, channel, data=f"{number} " + 9_000 * "x")
        async with connected(server.port, session=token) as client:
            for channel in channels:
                client.send("pusher:subscribe", {"channel": channel})
            for channel in channels:
                await client.expect("pusher_internal:subscription_succeeded")
                await client.expect("pusher:resume_success")
                for number in range(100):
                    message = await client.expect("news")
                    assert (message["channel"], message["data"].split()[0]) == (channel, str(number))
                    await asyncio.sleep(0)
            assert await client.is_quiet()


async def test_more_than_a_connection_may_be_behind_is_a_gap() -> None:
    async with realtime_server(reverb_server_max_backlog_bytes=65_536) as server:
        token = a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
        for number in range(8):
            await publish(server.port, number, data=9_000 * "x")
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
            assert json.loads((await client.expect("pusher:resume_failed"))["data"]) == {"reason": "gap"}
            assert await client.is_quiet()


async def test_nothing_is_left_of_a_session_that_ended_while_it_left_channels() -> None:
    async with cluster(1) as nodes:
        server, leave = nodes.nodes[0], nodes.presence.leave

        async def leave_slowly(app_id: str, channel: str, socket_id: str) -> Departure:
            await asyncio.sleep(0)
            return await leave(app_id, channel, socket_id)

        nodes.presence.leave = leave_slowly  # type: ignore[method-assign]
        async with connected(server.port, session=a_token()) as client:
            for channel in ("presence-a", "presence-b"):
                await client.subscribe(channel, {"user_id": "7"})
            for channel in ("presence-a", "presence-b"):
                client.send("pusher:unsubscribe", {"channel": channel})
            client.send_frame(8, (1000).to_bytes(2, "big"))
            await client.closed()
        await eventually(lambda: len(server.node.resumption) == 0)
        assert not server.node.resumption._followers


@asynccontextmanager
async def slow_takeovers(nodes: Cluster) -> AsyncIterator[None]:
    """The store's answers to new owners are on their way until the end."""
    take, over = nodes.sessions.take, asyncio.Event()

    async def take_slowly(app_id: str, name: str, owner: str) -> bytes | None:
        content = await take(app_id, name, owner)
        await over.wait()
        return content

    nodes.sessions.take = take_slowly  # type: ignore[method-assign]
    yield
    over.set()
    nodes.sessions.take = take  # type: ignore[method-assign]


async def test_a_socket_that_ends_before_it_has_its_session_takes_nothing_along() -> None:
    async with cluster(1) as nodes:
        [server], token = nodes.nodes, a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
        await eventually(lambda: not len(server.node.hub))
        await publish(server.port, 0)
        async with slow_takeovers(nodes):
            async with raw(server.port) as client:
                await client.handshake(f"/s/{token}/app/{KEY}?protocol=7")
                await eventually(lambda: len(server.node.hub))
            await eventually(lambda: not len(server.node.hub))
        async with connected(server.port, session=token) as client:
            assert await resumed(client) == [0]


async def test_the_second_of_two_sockets_that_come_back_at_once_has_the_session() -> None:
    async with cluster(1) as nodes:
        [server], token = nodes.nodes, a_token()
        async with connected(server.port, session=token) as client:
            await client.subscribe("chat")
        await eventually(lambda: not len(server.node.hub))
        await publish(server.port, 0)
        async with raw(server.port) as first, raw(server.port) as second:
            async with slow_takeovers(nodes):
                for number, client in enumerate((first, second), 1):
                    await client.handshake(f"/s/{token}/app/{KEY}?protocol=7")
                    await eventually(lambda expected=number: len(server.node.hub) == expected)
            for client in (first, second):
                await client.expect("pusher:connection_established")
            assert await resumed(second) == [0]
            await first.subscribe("chat")
            assert await first.is_quiet()


async def test_a_client_that_never_answers_barriers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption, "BARRIER_S", 0.01)
    monkeypatch.setattr(client_sessions, "MAX_UNANSWERED", 3)
    async with realtime_server() as server, connected(server.port, session=a_token()) as client:
        await client.subscribe("chat")
        await publish(server.port, 0)
        pings = 0
        while True:
            opcode, payload = await client.frame()
            if opcode == 8:
                assert int.from_bytes(payload[:2], "big") == 4201
                break
            if opcode == 1 and json.loads(payload)["event"] == "pusher:ping":
                pings += 1
                await publish(server.port, pings)
        assert pings >= 3
        await eventually(lambda: len(server.node.resumption) == 0)
