"""The HTTP fallback when the requests of a session reach different nodes."""

from __future__ import annotations

import asyncio
import json

import pytest

from kit.client import connected
from kit.cluster import cluster
from kit.engines import Between
from kit.realtime import KEY, call, realtime_server
from kit.redis import fresh_prefix, redis_server
from kit.waiting import LIMIT_S, eventually
from kit.xhr import XhrClient, request, session_name
from smartlink.server.cluster.brokers.base import Control, Publication
from smartlink.server.transports.fallback.sessions import INPUT

KINDS = pytest.mark.parametrize("is_poll", [False, True], ids=["streaming", "polling"])


async def publish(port: int, channel: str, data: str, name: str) -> None:
    body = json.dumps({"name": name, "channel": channel, "data": data}).encode()
    assert (await call(port, "POST", "/apps/1001/events", body)).status_code == 200


async def goes_on_wherever_its_requests_arrive(one: int, two: int, *, is_poll: bool) -> None:
    async with XhrClient(one, two, is_poll=is_poll) as client, connected(two) as other:
        await client.subscribe("presence-a", {"user_id": "1"})
        await other.subscribe("presence-a", {"user_id": "2"})
        while (await client.receive())["event"] != "pusher_internal:member_added":
            pass
        for number in range(80):
            await publish(one if number % 2 else two, "presence-a", "ö" * 4_900, str(number))
        # Two publishers: each is heard whole and in its order.
        received = [(await client.receive())["event"] for _ in range(80)]
        for parity in (0, 1):
            assert [n for n in received if int(n) % 2 == parity] == [str(n) for n in range(parity, 80, 2)]

        assert client.streams >= 2
        await client.send("client-a", {"n": 1}, channel="presence-a")
        while (message := await other.receive())["event"] != "client-a":
            pass
        assert message["user_id"] == "1"
        await client.send("client-a", {"n": 2}, channel="presence-a")
        assert (await other.expect("client-a"))["data"] == {"n": 2}
        await client.post(b"[]")
        await client.post(b"[]")
        if not is_poll:
            async with request(two, f"{client.base}/xhr_streaming?protocol=7") as elsewhere:
                await publish(one, "presence-a", "ö", "last")
                line = await elsewhere.line()
                while line == "a[]":
                    line = await elsewhere.line()
                assert json.loads(json.loads(line[1:])[0])["data"] == "ö"


@KINDS
async def test_a_session_continues_at_whichever_node_its_requests_arrive(is_poll: bool) -> None:
    async with cluster() as both:
        one, two = (node.port for node in both.nodes)
        await goes_on_wherever_its_requests_arrive(one, two, is_poll=is_poll)


@KINDS
async def test_a_session_continues_over_redis_too(is_poll: bool) -> None:
    with redis_server() as redis:
        settings = {"reverb_scaling_enabled": True, "reverb_scaling_channel": fresh_prefix(), "redis_url": redis.url}
        async with realtime_server(**settings) as one, realtime_server(**settings) as two:
            await goes_on_wherever_its_requests_arrive(one.port, two.port, is_poll=is_poll)
            assert one.metrics.bus_messages_dropped == two.metrics.bus_messages_dropped == 0
            assert one.metrics.internal_errors == two.metrics.internal_errors == 0


@KINDS
async def test_leaving_by_another_node_is_noticed_at_once(is_poll: bool) -> None:
    async with cluster() as both:
        one, two = (node.port for node in both.nodes)
        async with connected(one) as other:
            await other.subscribe("presence-a", {"user_id": "2"})
            async with XhrClient(one, is_poll=is_poll) as client:
                await client.subscribe("presence-a", {"user_id": "1"})
                verb = "xhr" if is_poll else "xhr_streaming"
                async with request(two, f"{client.base}/{verb}?protocol=7"):
                    if not is_poll:
                        assert client.answer is not None
                        assert await client.answer.lines() == []
                client.is_over = True
            await other.expect("pusher_internal:member_added")
            await other.expect("pusher_internal:member_removed")
        await eventually(lambda: all("#xhr" not in channel for b in both.brokers for _, channel in b.subscribed))
        await eventually(lambda: sum(node.metrics.connections_closed for node in both.nodes) == 2)
        assert await both.presence.channels("1001") == {}


@KINDS
async def test_the_owners_stop_reaches_the_client(is_poll: bool) -> None:
    async with cluster() as both:
        owner, other = both.nodes
        async with XhrClient(owner.port, other.port, is_poll=is_poll) as client:
            asked = asyncio.create_task(client.closed())
            await asyncio.sleep(0)
            await owner.stop()

            assert (await asked).code == 4200


async def test_streams_end_when_their_owner_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smartlink.server.transports.fallback.outlets.ASK_EVERY_S", 0.5)
    async with cluster() as both:
        owner, other = both.nodes
        async with XhrClient(owner.port, is_poll=False) as client:
            async with request(other.port, f"{client.base}/xhr_streaming?protocol=7") as stream:
                assert client.answer is not None
                assert await client.answer.lines() == []
                for broker in both.brokers:
                    broker.is_available = False
                await both.presence.leave("1001", f"#xhr-{client.session.replace('/', '.')}", client.socket_id)
                with pytest.raises(asyncio.IncompleteReadError):
                    await stream.body()


async def all_lines(port: int, path: str) -> list[str]:
    async with request(port, path) as answer:
        return await answer.lines()


async def some_turns() -> None:
    """What was sent over loopback has come in."""
    for _ in range(20):
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("second", [0, 1], ids=["the same node", "another node"])
async def test_a_request_during_the_start_of_its_session_takes_it_over(second: int) -> None:
    between, path = Between(), f"/app/{KEY}/{session_name()}/xhr_streaming?protocol=7"
    async with (
        realtime_server(engines=between.engines()) as one,
        realtime_server(engines=between.engines()) as two,
        asyncio.timeout(LIMIT_S),
    ):
        between.joining.shut()
        former = asyncio.create_task(all_lines(one.port, path))
        await eventually(lambda: between.joining.waiting == 1)
        latter = asyncio.create_task(all_lines((one, two)[second].port, path))
        await some_turns()
        between.joining.open()

        opened, established = await former
        assert opened == "o"
        assert "connection_established" in established
        await one.stop()
        assert (await latter)[-1].startswith("c[4200")


async def test_a_request_at_another_node_ends_if_its_session_is_refused() -> None:
    between, path = Between(), f"/app/{KEY}/{session_name()}/xhr_streaming?protocol=7"
    async with (
        realtime_server(engines=between.engines(), reverb_app_max_connections=1) as one,
        realtime_server(engines=between.engines()) as two,
        asyncio.timeout(LIMIT_S),
    ):
        between.joining.shut()
        former = asyncio.create_task(all_lines(one.port, path))
        await eventually(lambda: between.joining.waiting == 1)
        async with request(two.port, path) as latter, connected(one.port):
            await some_turns()
            between.joining.open()

            assert (await former)[-1].startswith("c[4100")
            assert await latter.lines() == []


async def test_while_nodes_are_disconnected_a_session_elsewhere_gets_503() -> None:
    async with cluster() as both:
        owner, other = both.nodes
        async with XhrClient(owner.port) as client:
            for broker in both.brokers:
                broker.is_available = False
            async with request(other.port, f"{client.base}/xhr_send", b"[]") as answer:
                assert answer.status == 503
            async with request(other.port, f"{client.base}/xhr_streaming?protocol=7") as answer:
                assert answer.status == 503
            await client.post(b"[]")


async def test_a_session_that_no_node_has_is_unknown_everywhere() -> None:
    async with cluster() as both:
        for node in both.nodes:
            async with request(node.port, "/app/app-key/1/abcdefgh/xhr_send", b"[]") as answer:
                assert answer.status == 404


async def test_a_slow_reader_at_another_node_is_cut() -> None:
    async with cluster(reverb_server_max_backlog_bytes=65_536) as both:
        owner, other = both.nodes
        async with XhrClient(owner.port) as client:
            await client.subscribe("room")
            async with request(other.port, f"{client.base}/xhr_streaming?protocol=7"):
                assert client.answer is not None
                assert await client.answer.lines() == []
                for number in range(2_000):
                    await publish(owner.port, "room", "x" * 10_000, str(number))
                    if owner.metrics.connections_closed:
                        break

                await eventually(lambda: owner.metrics.connections_closed == 1)


async def test_invalid_messages_between_nodes_are_dropped() -> None:
    async with cluster() as both:
        one, two = both.nodes
        async with XhrClient(one.port, two.port) as client:
            await client.subscribe("a")
            async with request(two.port, f"{client.base}/xhr_streaming?protocol=7") as elsewhere:
                handlers = two.node._listening._handlers
                await eventually(lambda: handlers)
                ((app_id, channel),) = handlers
                one.node.deliver(Control(app_id, INPUT, client.session.replace("/", "."), "no messages"))
                two.node.deliver(Publication(app_id, channel, b"no lines"))
                await publish(one.port, "a", "x", "still heard")

                while "still heard" not in (await elsewhere.line() or ""):
                    pass
        assert [node.metrics.bus_messages_dropped for node in both.nodes] == [1, 1]
