"""Rules that other servers of this protocol are known to break, each with a test.

Those that take several nodes are in `tests/faults/test_rules_across_nodes.py`.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import smartlink.protocol.signing
from kit.client import connected, raw
from kit.realtime import an_app, realtime_server
from kit.two_tenants import ONE, TWO, Stage, stage, subscription
from kit.waiting import LIMIT_S, eventually
from smartlink.protocol.signing import body_md5, sign_channel, sign_request, signed_query
from smartlink.server.runtime.limits import TokenBucket

PATH = f"/apps/{ONE.id}"


@pytest.fixture
async def scene() -> AsyncIterator[Stage]:
    async with stage() as it:
        yield it


# Who is refused has no effect afterwards


async def test_a_socket_over_the_limit_can_do_nothing() -> None:
    async with realtime_server(an_app(max_connections=1)) as server, connected(server.port) as first:
        await first.subscribe("private-a")
        async with connected(server.port) as second:
            second.send("pusher:subscribe", {"channel": "chat"})
            second.send("client-x", {}, channel="private-a")
            second.send_frame(9, b"still there?")

            assert (await second.closed()).code == 4100
        assert await first.is_quiet()
        assert server.node.hub.channel("1001", "chat") is None


async def test_a_socket_of_a_wrong_origin_can_do_nothing() -> None:
    async with realtime_server(reverb_app_allowed_origins="https://a.example") as server, raw(server.port) as client:
        await client.handshake("/app/app-key?protocol=7", "Origin: https://b.example\r\n")
        client.send("pusher:subscribe", {"channel": "chat"})
        async with asyncio.timeout(LIMIT_S):
            await client.reader.read()

        assert server.node.hub.channel("1001", "chat") is None
        assert len(server.node.hub) == 0


async def test_a_refused_subscription_leaves_nothing_behind(scene: Stage) -> None:
    async with scene.client() as client:
        for channel in ("private-none", "presence-none", "private-encrypted-none", "private-cache-none"):
            client.send("pusher:subscribe", {"channel": channel, "auth": "app-key:0"})
            await client.expect("pusher:subscription_error")
            assert scene.server.node.hub.channel(ONE.id, channel) is None
        _, answer = await scene.api.call(ONE, "GET", f"{PATH}/channels")

    assert set(answer["channels"]) == {"chat", "private-room", "presence-room"}


async def test_a_refused_client_event_is_an_error_and_never_a_close() -> None:
    async with realtime_server(an_app(client_events_per_s=1)) as server, connected(server.port) as client:
        await client.subscribe("private-a")
        client.send("client-x", {}, channel="chat")
        assert (await client.expect("pusher:error"))["data"]["code"] == 4301
        for _ in range(50):
            client.send("client-x", {}, channel="private-a")
        codes = {(await client.expect("pusher:error"))["data"]["code"] for _ in range(49)}

        assert codes == {4301}
        assert await client.is_quiet()


async def test_subscribing_without_data_or_with_text_keeps_the_connection(scene: Stage) -> None:
    async with scene.client() as client:
        client.send_text('{"event":"pusher:subscribe"}')
        await client.expect("pusher:error")
        client.send("pusher:subscribe", "chat")
        await client.expect("pusher:error")
        client.send("pusher:subscribe", '{"channel":"as-text"}')
        assert (await client.expect("pusher_internal:subscription_succeeded"))["channel"] == "as-text"
    await scene.nobody_was_harmed()


# Every socket counts and is looked after


async def test_sockets_without_a_subscription_count_against_the_limit() -> None:
    async with realtime_server(an_app(max_connections=2)) as server, connected(server.port), connected(server.port):
        async with connected(server.port) as third:
            assert third.socket_id == ""
            assert (await third.closed()).code == 4100


async def test_sockets_without_a_subscription_are_pinged() -> None:
    async with realtime_server(an_app(ping_interval_s=15)) as server, connected(server.port) as client:
        server._sweeper.now = lambda: time.monotonic() + 16  # type: ignore[method-assign]
        server._sweeper.turn()
        assert await client.frame() == (9, b"")
        assert json.loads((await client.frame())[1])["event"] == "pusher:ping"
        server._sweeper.now = lambda: time.monotonic() + 32  # type: ignore[method-assign]
        server._sweeper.turn()

        assert (await client.closed()).code == 4201


@pytest.fixture
def _descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4_096:
        pytest.skip(f"this machine allows {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4_096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_descriptors")
async def test_descriptors_above_1024_work() -> None:
    async with realtime_server(an_app(max_connections=2_000)) as server, AsyncExitStack() as stack:
        # Client and server share a process here: 600 connections are 1,200 descriptors.
        clients = [await stack.enter_async_context(connected(server.port)) for _ in range(600)]
        assert max(server._poller.links) > 1_100  # type: ignore[union-attr]
        for client in clients:
            client.send("pusher:subscribe", {"channel": "chat"})
        for client in clients:
            await client.expect("pusher_internal:subscription_succeeded")
        await server.node.publish(an_app(), "chat", b'{"event":"e","channel":"chat","data":"{}"}')

        for client in clients:
            await client.expect("e")


async def test_a_rate_limiter_is_freed_with_its_socket(scene: Stage) -> None:
    def limiters() -> int:
        gc.collect()
        return sum(isinstance(thing, TokenBucket) for thing in gc.get_objects())

    before = limiters()
    for _ in range(5):
        async with scene.client(ONE, "private-room") as client:
            client.send("client-x", {}, channel="private-room")
            await scene.watching[ONE.id].expect("client-x")
    assert limiters() > before

    await eventually(lambda: limiters() == before, what="limiters of sockets that are gone")


async def test_a_disconnect_visits_only_that_connections_channels(scene: Stage) -> None:
    async with scene.client() as many:
        for n in range(200):
            many.send("pusher:subscribe", {"channel": f"of-many-{n}"})
        for _ in range(200):
            await many.expect("pusher_internal:subscription_succeeded")
        hub = scene.server.node.hub
        looked_at: list[str] = []
        async with scene.client(ONE, "of-one") as one:
            connection = hub.connection(ONE.id, one.socket_id)
            assert connection is not None
            leave = hub._leave
            hub._leave = lambda tenant, who, name, descriptor: (
                looked_at.append(name) or leave(tenant, who, name, descriptor)
            )  # type: ignore[method-assign, func-returns-value]
        await eventually(lambda: hub.connection(ONE.id, one.socket_id) is None)

        assert looked_at == ["of-one"]


@pytest.mark.parametrize("size", [10_241, 100 << 20, 1 << 40, (1 << 63) - 1])
async def test_a_frame_of_any_size_is_refused_by_its_header(scene: Stage, size: int) -> None:
    async with scene.client() as client:
        client.writer.write(
            b"\x81" + (b"\xfe" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xff" + size.to_bytes(8, "big"))
        )

        assert (await client.closed()).code == 1009
    await scene.nobody_was_harmed()


# Calls of official clients are answered


async def test_gets_of_the_official_python_client_are_accepted(scene: Stage) -> None:
    """It signs `body_md5` of the empty body."""
    for call in ("channels", "channels/chat", "channels/presence-room/users"):
        params = {
            "auth_key": ONE.key, "auth_timestamp": str(int(time.time())), "auth_version": "1.0", "body_md5": body_md5(b"")
        }  # fmt: skip
        signature = sign_request(ONE.secret, "GET", f"{PATH}/{call}", params.items())
        query = "&".join(f"{name}={value}" for name, value in (params | {"auth_signature": signature}).items())

        assert (await scene.api.send("GET", f"{PATH}/{call}?{query}"))[0] == 200


async def test_its_terminate_path_without_the_app_id_is_accepted(scene: Stage) -> None:
    assert await scene.api.call(TWO, "POST", "/users/bystander/terminate_connections", b"{}") == (200, {})

    assert (await scene.watching[TWO.id].closed()).code == 4009
    assert await scene.watching[ONE.id].is_quiet()


async def test_chunked_bodies_are_read(scene: Stage) -> None:
    body = b'{"name":"e","channel":"chat","data":"{}"}'
    query = signed_query(ONE.key, ONE.secret, "POST", f"{PATH}/events", body, timestamp=int(time.time()))
    async with raw(scene.server.port) as client:
        client.writer.write(
            f"POST {PATH}/events?{query} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        for start in range(0, len(body), 10):
            piece = body[start : start + 10]
            client.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.writer.write(b"0\r\n\r\n")
        async with asyncio.timeout(LIMIT_S):
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert (await scene.watching[ONE.id].receive())["event"] == "e"


async def test_terminating_a_user_without_connections_is_not_an_error(scene: Stage) -> None:
    async with scene.client(), scene.client(ONE, "chat"):
        assert await scene.api.call(ONE, "POST", f"{PATH}/users/7/terminate_connections", b"{}") == (200, {})
    await scene.nobody_was_harmed()


# Errors have their status


async def test_invalid_json_is_400_and_not_500(scene: Stage) -> None:
    for body in (b"{", b"", b"[" * 10_000, b'{"name":"\\ud800"}'):
        assert (await scene.api.call(ONE, "POST", f"{PATH}/events", body))[0] == 400


async def test_errors_do_not_have_status_200(scene: Stage) -> None:
    calls = [
        ("POST", f"{PATH}/events", b"{}", 400),
        ("POST", f"{PATH}/batch_events", b"{}", 400),
        ("GET", f"{PATH}/channels/chat/users", b"", 400),
        ("GET", "/apps/9/channels", b"", 404),
        ("GET", f"{PATH}/nothing", b"", 404),
        ("GET", f"{PATH}/events", b"", 405),
    ]
    for method, path, body, status in calls:
        assert (await scene.api.call(ONE, method, path, body))[0] == status
    assert (await scene.api.send("GET", f"{PATH}/channels"))[0] == 401


async def test_users_of_an_empty_presence_channel_are_an_empty_list_and_not_404(scene: Stage) -> None:
    assert await scene.api.call(ONE, "GET", f"{PATH}/channels/presence-nobody/users") == (200, {"users": []})


# Signatures open what they were made for, and nothing else


async def test_another_applications_key_with_a_valid_call_signature_is_refused(scene: Stage) -> None:
    params = {"auth_key": TWO.key, "auth_timestamp": str(int(time.time())), "auth_version": "1.0"}
    signature = sign_request(ONE.secret, "GET", f"{PATH}/channels", params.items())
    query = "&".join(f"{name}={value}" for name, value in (params | {"auth_signature": signature}).items())

    assert (await scene.api.send("GET", f"{PATH}/channels?{query}"))[0] == 401


async def test_another_applications_key_with_a_valid_channel_signature_is_refused(scene: Stage) -> None:
    async with scene.client() as client:
        auth = sign_channel(TWO.key, ONE.secret, client.socket_id, "private-a")
        client.send("pusher:subscribe", {"channel": "private-a", "auth": auth})

        assert (await client.expect("pusher:subscription_error"))["data"]["status"] == 401


async def test_presence_without_a_member_is_refused_unless_signed_in(scene: Stage) -> None:
    async with scene.client() as client:
        client.send("pusher:subscribe", subscription(ONE, client.socket_id, "presence-room"))
        assert (await client.expect("pusher:subscription_error"))["data"]["status"] == 401
    await scene.nobody_was_harmed()


async def test_private_channels_may_be_signed_with_channel_data(scene: Stage) -> None:
    async with scene.client() as client:
        client.send("pusher:subscribe", subscription(ONE, client.socket_id, "private-a", '{"expires":1}'))

        await client.expect("pusher_internal:subscription_succeeded")


@pytest.mark.parametrize(("offset_s", "status"), [(-602, 401), (-598, 200), (598, 200), (603, 401)])
async def test_the_timestamp_of_a_call_is_checked(scene: Stage, offset_s: int, status: int) -> None:
    query = signed_query(ONE.key, ONE.secret, "GET", f"{PATH}/channels", timestamp=int(time.time()) + offset_s)

    assert (await scene.api.send("GET", f"{PATH}/channels?{query}"))[0] == status


def test_a_signature_is_compared_in_constant_time() -> None:
    """No `==` on a signature anywhere in the language or the server."""
    sources = Path(smartlink.protocol.signing.__file__).parents[1]
    for source in (*(sources / "protocol").rglob("*.py"), *(sources / "server").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
                continue
            names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            names |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
            signed = {name for name in names if any(word in name for word in ("signature", "_hex", "sign_"))}
            assert not signed, f"{source.name}:{node.lineno} compares {signed}"


# Names are matched whole


async def test_channel_prefixes_include_the_dash(scene: Stage) -> None:
    async with scene.client() as client:
        for channel in ("privatefoo", "presencefoo", "private_x", "presence.x", "cachefoo", "PRIVATE-x"):
            client.send("pusher:subscribe", {"channel": channel})
            assert (await client.expect("pusher_internal:subscription_succeeded"))["data"] == "{}"


async def test_channel_names_are_matched_in_full(scene: Stage) -> None:
    async with scene.client() as client:
        for channel in ("chat\n", "\nchat", "chat\nevil", "a b chat", "chat/../x"):
            client.send("pusher:subscribe", {"channel": channel})
            assert (await client.expect("pusher:subscription_error"))["data"]["type"] == "InvalidChannel"
            status, _ = await scene.api.publish(ONE, channel)
            assert status == 400
    await scene.nobody_was_harmed()


# What is published is kept, counted and delivered


async def test_an_event_published_to_an_empty_cache_channel_is_cached(scene: Stage) -> None:
    await scene.api.publish(ONE, "cache-a", "kept")

    async with scene.client(ONE, "cache-a") as client:
        assert (await client.receive())["event"] == "kept"


async def test_user_count_counts_users_and_subscription_count_sockets(scene: Stage) -> None:
    async with scene.client() as one, scene.client() as two:
        for client in (one, two):
            await scene.join(client, ONE, "presence-tabs", "7")
        info = {"info": "user_count,subscription_count"}
        _, answer = await scene.api.call(ONE, "GET", f"{PATH}/channels/presence-tabs", params=info)

        assert answer == {"occupied": True, "user_count": 1, "subscription_count": 2}


async def test_a_burst_within_the_limits_reaches_all_in_order(scene: Stage) -> None:
    for n in range(300):
        await scene.api.publish(ONE, "chat", f"e{n}")

    assert [(await scene.watching[ONE.id].receive())["event"] for _ in range(300)] == [f"e{n}" for n in range(300)]


# Who is slow, or must leave, is told


async def test_a_slow_client_is_closed_and_does_not_lose_messages_silently() -> None:
    async with realtime_server(reverb_server_max_backlog_bytes=65_536) as server, connected(server.port) as slow:
        await slow.subscribe("chat")
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        frame = json.dumps({"event": "e", "channel": "chat", "data": "x" * 9_000}).encode()
        for _ in range(3_000):
            await server.node.publish(an_app(), "chat", frame)
            await asyncio.sleep(0)
            if server.metrics.slow_consumers:
                break
        assert server.metrics.slow_consumers == 1
        slow.reader._transport.resume_reading()  # type: ignore[attr-defined]

        assert (await slow.closed()).code == 4100


async def test_a_stop_closes_connections_at_a_pace_and_tells_clients_to_reconnect() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(realtime_server(reverb_server_drain_seconds=0.3))
        clients = [await stack.enter_async_context(connected(server.port)) for _ in range(40)]
        stopping = asyncio.create_task(server.stop())
        left: list[int] = []
        for client in clients:
            assert (await client.closed()).code == 4200
            client.send_frame(8, (4200).to_bytes(2, "big"))
            left.append(len(server.node.hub))
        await stopping

        assert len(set(left)) > 3, "all were closed at once"
