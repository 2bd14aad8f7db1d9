"""Ping and pong, slow consumers, draining, TLS."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from kit.client import Client, connected, raw
from kit.realtime import call, realtime_server
from kit.waiting import LIMIT_S
from smartlink.server.observe.diagnosis import Diagnosis
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.settings.config import ServerSettings, UnsafeSettings
from smartlink.server.transports.ws.upgrade import MIN_SENT_ON

ANA = {"user_id": "1", "user_info": {"name": "Ana"}}


async def until(condition: Any, timeout_s: float = LIMIT_S) -> None:
    """Wait until `condition()` is true."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_silent_client_is_pinged_and_then_closed() -> None:
    async with realtime_server(reverb_app_ping_interval=1) as server, connected(server.port) as client:
        opcode, _ = await client.frame()
        assert opcode == 9
        _, text = await client.frame()
        assert json.loads(text)["event"] == "pusher:ping"

        opcode, text = await client.frame()
        assert (opcode, json.loads(text)["data"]["code"]) == (1, 4201)
        opcode, payload = await client.frame()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (8, 4201)
        await until(lambda: len(server.node.hub) == 0)


async def test_any_byte_counts_as_activity() -> None:
    async with realtime_server(reverb_app_ping_interval=1) as server, connected(server.port) as client:
        for _ in range(3):
            while (await client.frame())[0] != 9:
                pass
            client.send_frame(10)

        assert len(server.node.hub) == 1


async def test_a_slow_consumer_is_cut_with_4100_and_the_others_get_everything() -> None:
    body = json.dumps({"name": "e", "channel": "chat", "data": "x" * 10_000}).encode()
    async with realtime_server(reverb_server_max_backlog_bytes=65_536) as server, connected(server.port) as good:
        await good.subscribe("chat")
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        await asyncio.to_thread(slow.connect, ("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=slow, limit=4_096)
        writer.write(
            b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"activity_timeout")
        subscribe = b'{"event":"pusher:subscribe","data":{"channel":"chat"}}'
        writer.write(bytes([0x81, 0x80 | len(subscribe), 0, 0, 0, 0]) + subscribe)
        await until(lambda: len(server.node.hub.channel("1001", "chat") or ()) == 2)

        sent = 0
        while server.metrics.slow_consumers == 0 and sent < 3_000:
            await call(server.port, "POST", "/apps/1001/events", body)
            sent += 1
            assert (await good.receive())["event"] == "e"
        assert server.metrics.slow_consumers == 1
        assert len(server.node.hub) == 1
        async with asyncio.timeout(LIMIT_S):
            rest = await reader.read(-1)
        writer.close()
        assert b"4100" in rest[-300:]
        assert (4100).to_bytes(2, "big") in rest[-200:]
        await call(server.port, "POST", "/apps/1001/events", body)
        assert (await good.receive())["event"] == "e"


async def test_a_consumer_that_catches_up_misses_nothing() -> None:
    async with realtime_server() as server, connected(server.port) as reader, connected(server.port) as other:
        await reader.subscribe("chat")
        await other.subscribe("chat")
        reader.reader._transport.pause_reading()  # type: ignore[attr-defined]
        link = server.node.hub.connection("1001", reader.socket_id)
        number = 0
        while link is not None and link.descriptor >= 0 and number < 2_000:
            body = {"name": str(number), "channel": "chat", "data": "x" * 10_000}
            await call(server.port, "POST", "/apps/1001/events", json.dumps(body).encode())
            number += 1
        assert link is not None
        assert link.descriptor < 0
        for _ in range(20):
            body = {"name": str(number), "channel": "chat", "data": "x" * 10_000}
            await call(server.port, "POST", "/apps/1001/events", json.dumps(body).encode())
            number += 1
        reader.reader._transport.resume_reading()  # type: ignore[attr-defined]

        assert [int((await reader.receive())["event"]) for _ in range(number)] == list(range(number))
        assert [int((await other.receive())["event"]) for _ in range(number)] == list(range(number))
        await until(lambda: link.descriptor >= 0)
        await call(server.port, "POST", "/apps/1001/events", b'{"name":"last","channel":"chat","data":""}')
        assert (await reader.receive())["event"] == "last"


async def test_a_stop_tells_every_client_to_reconnect() -> None:
    async with realtime_server() as server, connected(server.port) as one, connected(server.port) as two:
        await one.subscribe("chat")
        stopping = asyncio.create_task(server.stop())

        assert {(await one.closed()).code, (await two.closed()).code} == {4200}
        for client in (one, two):
            client.send_frame(8, (4200).to_bytes(2, "big"))
        await stopping


async def test_a_client_that_vanishes_leaves_nothing_behind(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        await client.subscribe("presence-chat", ANA)
    await until(lambda: len(server.node.hub) == 0)

    assert await server.node.presence.channels("1001") == {}


async def test_five_hundred_connections_come_and_go(server: RealtimeServer) -> None:
    async with connected(server.port) as witness:
        await witness.subscribe("chat")
        for _ in range(5):
            clients = [connected(server.port) for _ in range(100)]
            opened = [await client.__aenter__() for client in clients]
            for one in opened:
                await one.subscribe("chat")
            await call(server.port, "POST", "/apps/1001/events", b'{"name":"e","channel":"chat","data":""}')
            for one in opened:
                await one.expect("e")
            for client in clients:
                await client.__aexit__(None, None, None)
            await until(lambda: len(server.node.hub) == 1)
            await witness.expect("e")


async def test_connections_work_over_tls(certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    context = ssl.create_default_context(cafile=cert)
    async with realtime_server(reverb_server_tls_cert=cert, reverb_server_tls_key=key) as server:
        async with connected(server.port, tls=context) as ana, connected(server.port, tls=context) as ben:
            await ana.subscribe("presence-chat", ANA)
            await ben.subscribe("presence-chat", {"user_id": "2"})
            await ana.expect("pusher_internal:member_added")
            for number in range(100):
                body = {"name": str(number), "channel": "presence-chat", "data": "x" * 10_000}
                await call(server.port, "POST", "/apps/1001/events", json.dumps(body).encode(), tls=context)
            assert [int((await ben.receive())["event"]) for _ in range(100)] == list(range(100))
            ben.send("client-x", {}, channel="presence-chat")
            assert [int((await ana.receive())["event"]) for _ in range(100)] == list(range(100))
            assert (await ana.receive())["user_id"] == "2"
        await until(lambda: len(server.node.hub) == 0)
        assert server.metrics.internal_errors == 0


async def test_a_certificate_that_ends_soon_is_named(certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    context = ssl.create_default_context(cafile=cert)
    async with realtime_server(reverb_server_tls_cert=cert, reverb_server_tls_key=key) as server:
        figures = server.rates.figures()
        (ends_at,) = [value for name, value in figures.items() if name.startswith("smartlink_certificate_ends")]
        told = (await call(server.port, "GET", "/up", tls=context)).json()

        assert server.certificate is not None
        assert ends_at == server.certificate.ends_at
        assert 0 < ends_at - time.time() <= 86_400
        assert told["health"] == "OK"
        assert told["warnings"] == ["The certificate ends in 0 days: renew REVERB_SERVER_TLS_CERT, then send SIGHUP"]
        assert [finding.key for finding in Diagnosis().take(time.time(), figures)] == ["certificate_ends"]
        ended = {name: ends_at - 86_400 if "certificate" in name else value for name, value in figures.items()}
        assert [finding.key for finding in Diagnosis().take(time.time(), ended)] == ["certificate_ended"]


async def test_plain_text_to_a_tls_port_harms_nobody(certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    async with realtime_server(reverb_server_tls_cert=cert, reverb_server_tls_key=key) as server:
        async with raw(server.port) as client:
            client.writer.write(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(LIMIT_S):
                await client.reader.read()
        async with connected(server.port, tls=ssl.create_default_context(cafile=cert)) as good:
            assert await good.is_quiet()


@pytest.mark.parametrize(
    "changed",
    [
        {"reverb_server_host": "0.0.0.0"},
        {"reverb_server_host": "0.0.0.0", "reverb_app_secret": "short"},
        {"reverb_server_host": "::"},
        {"reverb_server_tls_cert": "cert.pem"},
    ],
)
def test_starting_with_unsafe_settings_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(UnsafeSettings, match=r"REVERB_|Set both"):
        ServerSettings(_env_file=None, **changed).check_start()  # type: ignore[arg-type]


def test_a_long_secret_allows_listening_on_all_addresses() -> None:
    ServerSettings(_env_file=None, reverb_server_host="0.0.0.0", reverb_app_secret="s" * 32).check_start()


async def test_clients_that_come_during_a_stop_are_sent_on_at_once_but_not_for_ever() -> None:
    async with realtime_server() as server:
        server.is_ready = False
        codes = []
        for _ in range(MIN_SENT_ON + 2):
            async with connected(server.port) as client:
                codes.append(client.refusal["code"])  # type: ignore[attr-defined]

        assert codes == [4200] * MIN_SENT_ON + [4100] * 2


async def test_a_kept_connection_in_use_is_answered_once_more_when_the_server_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smartlink.server.transports.http.connection.RESTED_S", 60.0)
    request = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n"
    async with realtime_server() as server, raw(server.port) as busy, raw(server.port) as resting:

        async def ask(client: Client) -> bytes:
            client.writer.write(request)
            async with asyncio.timeout(LIMIT_S):
                head = await client.reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await client.reader.readexactly(int(length.partition(b":")[2]))
            return head

        await ask(resting)
        server._sweeper.now, now = lambda: now() + 60.0, server._sweeper.now
        assert b"Connection: close" not in await ask(busy)
        stopping = asyncio.create_task(server.stop())
        async with asyncio.timeout(LIMIT_S):
            assert await resting.reader.read() == b""
        assert b"Connection: close" in await ask(busy)
        await stopping
