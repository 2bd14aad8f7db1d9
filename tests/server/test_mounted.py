"""The server behind an ASGI application's own port, under each ASGI server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kit import processes
from kit.asgi_servers import ASGI_SERVERS, command_of, served_by
from kit.client import connected
from kit.ports import free_port
from kit.realtime import APP_ID, KEY, SECRET, call
from kit.redis import RedisServer, fresh_prefix
from kit.subscribers import a_client, publish, taken
from kit.waiting import LIMIT_S, eventually
from kit.xhr import XhrClient
from smartlink.client import Client
from smartlink.protocol.signing import signed_query
from smartlink.server.run.embedded import ServerRunsAlready
from smartlink.server.run.mounted import RealtimeApp
from smartlink.server.settings.config import ServerSettings

APPLICATION = """
from fastapi import FastAPI
from smartlink.server.run.mounted import RealtimeApp

realtime = RealtimeApp()
app = FastAPI(lifespan=realtime.lifespan)


@app.get("/own")
def own() -> str:
    return "the application's"


app.mount("PREFIX", realtime)
"""
AT_ROOT = APPLICATION.replace("PREFIX", "/")
MEMBER = {"user_id": "7", "user_info": {}}


@pytest.fixture(scope="module", params=ASGI_SERVERS)
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp(request.param)
    limits = {"REVERB_SERVER_MAX_BACKLOG_BYTES": "65536", "REVERB_WEBHOOK_QUEUE": "memory"}
    with served_by(request.param, folder, AT_ROOT, **limits) as port:
        yield port
    said = (folder / "printed").read_text()
    assert "Traceback" not in said, said


async def subscribers(port: int, channel: str) -> int:
    answer = await call(port, "GET", f"/apps/{APP_ID}/channels/{channel}", params={"info": "subscription_count"})
    return int(answer.json().get("subscription_count", 0))


async def test_events_reach_websockets_and_the_applications_routes_stay(port: int) -> None:
    async with connected(port) as one, connected(port) as other:
        for client in (one, other):
            await client.subscribe("news")
        for n in range(20):
            await publish(port, "news", n)
        for client in (one, other):
            assert [json.loads((await client.expect("news"))["data"]) for _ in range(20)] == list(range(20))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        assert (await http.get("/own")).json() == "the application's"
        assert (await http.get(f"/apps/{APP_ID}/channels")).status_code == 401
        assert (await http.get("/nothing")).status_code == 404
        assert (await http.head(f"/apps/{APP_ID}/channels")).content == b""


async def test_the_client_of_the_package_resumes_its_session(port: int) -> None:
    async with a_client(port) as client:
        stream = (await client.subscribe("private-orders")).events("news")
        await publish(port, "private-orders", "before")
        assert await taken(stream, 1) == ["before"]
        members = await client.presence("presence-room")
        assert set(members.members) == {"7"}


async def test_refusals_say_why(port: int) -> None:
    async with connected(port, key="nobody") as client:
        assert (await client.closed()).code == 4001
    async with connected(port) as client:
        client.send_frame(0x2, b"binary")
        assert (await client.closed()).code == 1003
    async with connected(port) as client:
        client.send_text("x" * 20_000)
        assert (await client.closed()).code == 1009


async def test_a_member_that_leaves_or_is_lost_is_gone(port: int) -> None:
    async with connected(port) as watcher:
        await watcher.subscribe("presence-hall", MEMBER)
        async with connected(port) as polite:
            await polite.subscribe("presence-hall", MEMBER | {"user_id": "8"})
            await watcher.expect("pusher_internal:member_added")
            polite.send_frame(0x8, (1000).to_bytes(2, "big"))
            assert json.loads((await watcher.expect("pusher_internal:member_removed"))["data"]) == {"user_id": "8"}
        async with connected(port) as lost:
            await lost.subscribe("presence-hall", MEMBER | {"user_id": "9"})
            await watcher.expect("pusher_internal:member_added")
            lost.writer.transport.abort()
            assert json.loads((await watcher.expect("pusher_internal:member_removed"))["data"]) == {"user_id": "9"}


@pytest.mark.parametrize("is_poll", [False, True], ids=["stream", "poll"])
async def test_the_http_fallback_works(port: int, is_poll: bool) -> None:
    async with XhrClient(port, is_poll=is_poll) as client:
        await client.subscribe("news")
        for n in range(3):
            await publish(port, "news", n)
            assert json.loads((await client.expect("news"))["data"]) == n


async def test_bodies_are_limited_and_may_come_in_chunks(port: int) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 1_000):
            yield b"x" * 1_000

    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=LIMIT_S) as http:
        for body, status in ((b"x" * 300_000, 413), (chunks(300_000), 413), (chunks(2_000), 401), (b"{}", 401)):
            answer = await http.post(f"/apps/{APP_ID}/events", content=body)
            assert answer.status_code == status
            assert "error" in answer.json()


async def test_a_client_that_reads_nothing_is_ended_and_others_are_served(port: int) -> None:
    data = "x" * 10_000
    async with connected(port) as slow, connected(port) as quick:
        await slow.subscribe("flood")
        slow.writer.transport.pause_reading()
        await quick.subscribe("flood")
        async with asyncio.timeout(LIMIT_S):
            while await subscribers(port, "flood") == 2:
                for _ in range(50):
                    await publish(port, "flood", data[:9_000], "e")
                    await quick.expect("e")
        assert await subscribers(port, "flood") == 1


async def test_it_can_be_mounted_below_a_path(tmp_path: Path) -> None:
    with served_by("uvicorn", tmp_path, APPLICATION.replace("PREFIX", "/realtime")) as port:
        async with Client(f"ws://127.0.0.1:{port}/realtime", KEY, proxy=None) as client:
            stream = (await client.subscribe("news")).events("news")
            body = json.dumps({"name": "news", "channel": "news", "data": "1"}).encode()
            path = f"/apps/{APP_ID}/events"
            query = signed_query(KEY, SECRET, "POST", path, body, timestamp=int(time.time()))
            async with httpx2.AsyncClient(trust_env=False, timeout=LIMIT_S) as http:
                url = f"http://127.0.0.1:{port}/realtime{path}?{query}"
                assert (await http.post(url, content=body)).status_code == 200
            assert await taken(stream, 1) == [1]


@pytest.mark.parametrize("server", ASGI_SERVERS)
def test_workers_without_redis_say_so_at_the_start(tmp_path: Path, server: str) -> None:
    (tmp_path / "main.py").write_text(AT_ROOT)
    process = processes.popen(
        command_of(server, free_port(), 2), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if "knows nothing of this one's clients" in line:
                break
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT_S)
    assert "REVERB_SERVER_EMBEDDED=false" in said


async def test_workers_joined_by_redis_serve_together(tmp_path: Path, shared_redis: RedisServer) -> None:
    joined = {"REVERB_SCALING_ENABLED": "true", "REDIS_URL": shared_redis.url, "REVERB_SCALING_CHANNEL": fresh_prefix()}
    with served_by("uvicorn", tmp_path, AT_ROOT, workers=2, **joined) as port:
        clients = [a_client(port) for _ in range(8)]
        streams = []
        for client in clients:
            client.start()
            streams.append((await client.subscribe("news")).events("news"))
        await publish(port, "news", 1)
        for stream in streams:
            assert await taken(stream, 1) == [1]
        for client in clients:
            await client.close()


async def asked(app: RealtimeApp, **scope: Any) -> list[dict[str, Any]]:
    """What the application sends for one scope."""
    sent: list[dict[str, Any]] = []
    kind = scope.get("type", "http")
    messages = [{"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}]

    async def receive() -> Any:
        return messages.pop(0) if messages else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"type": "http", "method": "GET", "path": "/up", "query_string": b"", "headers": [], "client": None} | scope
    async with asyncio.timeout(LIMIT_S):
        await app(given, receive, send)
    return sent


def settings(**values: Any) -> ServerSettings:
    return ServerSettings(_env_file=None, reverb_webhook_queue="memory", **values)


async def test_without_its_lifespan_it_says_what_is_missing() -> None:
    app = RealtimeApp(settings())

    with pytest.raises(RuntimeError, match=r"FastAPI\(lifespan=realtime.lifespan\)"):
        await asked(app)
    async with app.lifespan():
        with pytest.raises(ServerRunsAlready, match="runs already"):
            async with app.lifespan():
                pass
        assert (await asked(app))[0]["status"] == 200
    async with app.lifespan():  # again, as an application's tests do
        assert (await asked(app))[0]["status"] == 200


async def test_one_setting_moves_it_out() -> None:
    app = RealtimeApp(settings(reverb_server_embedded=False))

    async with app.lifespan():
        assert (await asked(app))[0]["status"] == 404
        assert (await asked(app, type="websocket", path="/app/app-key"))[0]["type"] == "websocket.close"


@pytest.mark.parametrize(
    "forged",
    [
        {"headers": [(b"x", b"1\r\nx-forwarded-for: 1.2.3.4")]},
        {"headers": [(b"x\r\ny", b"1")]},
        {"query_string": b"a HTTP/1.0\r\nhost: b\r\n\r\nGET /"},
        {"raw_path": b"/up\nGET"},
    ],
)
async def test_a_line_break_within_a_request_is_refused(forged: dict[str, Any]) -> None:
    app = RealtimeApp(settings())

    async with app.lifespan():
        sent = await asked(app, **forged)

    assert [message.get("status") for message in sent] == [400, None]


@pytest.mark.parametrize(
    ("peer", "own", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("203.0.113.7", {}, 403),
        ("::ffff:203.0.113.7", {}, 403),
        ("203.0.113.7", {"reverb_app_secret": "x" * 20}, 200),
        (None, {}, 200),
    ],
)
async def test_a_sample_secret_serves_this_machine_alone(peer: str | None, own: dict[str, Any], status: int) -> None:
    app = RealtimeApp(settings(**own))

    async with app.lifespan():
        sent = await asked(app, client=None if peer is None else (peer, 1))

    assert sent[0]["status"] == status


async def test_it_is_an_application_by_itself() -> None:
    app = RealtimeApp(settings())
    sent: list[str] = []
    messages = asyncio.Queue[dict[str, str]]()

    async def send(message: Any) -> None:
        sent.append(message["type"])

    messages.put_nowait({"type": "lifespan.startup"})
    living = asyncio.create_task(app({"type": "lifespan"}, messages.get, send))
    await eventually(lambda: sent == ["lifespan.startup.complete"])
    assert (await asked(app))[0]["status"] == 200
    messages.put_nowait({"type": "lifespan.shutdown"})
    await living
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_start_that_fails_is_reported() -> None:
    app = RealtimeApp(settings(reverb_server_tls_cert="cert.pem"))  # without a key
    sent: list[dict[str, str]] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ValueError, match="REVERB_SERVER_TLS_KEY"):
        await app({"type": "lifespan"}, receive, send)
    assert sent[0]["type"] == "lifespan.startup.failed"
    assert "REVERB_SERVER_TLS_KEY" in sent[0]["message"]
