"""The official Go and Java libraries and Laravel's Redis broadcaster, unmodified, as publishers.

They need their toolchains: `make test-peers`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kit import processes
from kit.client import Client, connected
from kit.realtime import APP_ID, KEY, SECRET, realtime_server
from kit.redis import redis_server
from kit.waiting import eventually
from smartlink.protocol.signing import sign_webhook
from smartlink.server.run.lifecycle import RealtimeServer

HERE = Path(__file__).parent
LARAVEL = Path("/usr/share/php/Illuminate/Broadcasting")
WEBHOOK = json.dumps({"time_ms": 1_700_000_000_000, "events": [{"name": "channel_occupied", "channel": "chat"}]})
IS_ASKED_FOR = os.environ.get("SMARTLINK_TEST_PEERS") == "1"

COMPILED_S = 240
"""How long Go, Java or PHP may take to fetch, build and run a program."""
pytestmark = [
    pytest.mark.skipif(not IS_ASKED_FOR, reason="needs Go, Java and PHP: make test-peers"),
    pytest.mark.timeout(300),
]


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running


async def output(*command: str, cwd: Path) -> str:
    process = await processes.spawn(*command, cwd=cwd, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(COMPILED_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return out.decode()


@pytest.fixture
async def listeners(server: RealtimeServer) -> AsyncIterator[tuple[Client, Client]]:
    """A member on `chat` and `presence-room`, and the socket that publishers leave out."""
    async with connected(server.port) as member, connected(server.port) as sender:
        await member.subscribe("chat")
        await member.subscribe("presence-room", {"user_id": "7"})
        await sender.subscribe("chat")
        yield member, sender


async def heard(client: Client, until: str) -> list[tuple[str, str, Any]]:
    events: list[tuple[str, str, Any]] = []
    while not events or events[-1][0] != until:
        message = await client.receive()
        events.append((message["event"], message["channel"], json.loads(message["data"])))
    return events


async def heard_by_channel(client: Client, count: int) -> dict[str, list[tuple[str, Any]]]:
    events: dict[str, list[tuple[str, Any]]] = {}
    for _ in range(count):
        message = await client.receive()
        events.setdefault(message["channel"], []).append((message["event"], json.loads(message["data"])))
    return events


async def accept(client: Client, channel: str, auth: dict[str, Any]) -> None:
    client.send("pusher:subscribe", {"channel": channel} | auth)
    assert (await client.expect("pusher_internal:subscription_succeeded"))["channel"] == channel


# What takes long is done before anybody listens: nobody would answer the server's pings meanwhile.


@pytest.fixture
async def go_program(tmp_path: Path) -> Path:
    await output("go", "build", "-o", str(tmp_path / "publish"), ".", cwd=HERE / "go")
    return tmp_path / "publish"


@pytest.fixture
async def jars(tmp_path: Path) -> str:
    found = tmp_path / "jars"
    await output("mvn", "-q", "-B", "dependency:build-classpath", f"-Dmdep.outputFile={found}", cwd=HERE / "java")
    return found.read_text().strip()


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go here")
async def test_the_go_library_publishes(
    go_program: Path, server: RealtimeServer, listeners: tuple[Client, Client]
) -> None:
    member, sender = listeners
    given = {
        "Host": f"127.0.0.1:{server.port}", "AppID": APP_ID, "Key": KEY, "Secret": SECRET, "SocketID": sender.socket_id,
        "Body": WEBHOOK, "Signature": sign_webhook(SECRET, WEBHOOK.encode()),
    }  # fmt: skip
    saw = json.loads(await output(str(go_program), json.dumps(given), cwd=HERE))

    assert [saw[call] for call in ("trigger", "exclusive", "multi")] == ["ok"] * 3
    assert saw["info"] == {"channels": {"presence-room": {"user_count": 1, "subscription_count": 1}}}
    assert saw["batch"]["batch"][1]["user_count"] == 1
    assert saw["channels"] == {"channels": {"presence-room": {"user_count": 1}}}
    assert saw["channel"] == {"Name": "presence-room", "occupied": True, "user_count": 1, "subscription_count": 1}
    assert saw["users"] == {"users": [{"id": "7"}]}
    assert saw["bad"].startswith("error: ")
    assert saw["webhook"]["events"][0]["channel"] == "chat"
    assert saw["forged webhook"].startswith("error: ")
    events = await heard(member, "second")
    assert events[:2] == [("go", "chat", {"text": "žluť 😀"}), ("not to the sender", "chat", 1)]
    assert {event[:2] for event in events[2:4]} == {("both", "chat"), ("both", "presence-room")}
    assert [event[0] for event in await heard(sender, "first")] == ["go", "both", "first"]
    await accept(sender, "private-go", json.loads(saw["private"]))
    await accept(sender, "presence-go", json.loads(saw["presence"]))
    sender.send("pusher:signin", json.loads(saw["signin"]))
    await sender.expect("pusher:signin_success")


@pytest.mark.skipif(shutil.which("mvn") is None or shutil.which("java") is None, reason="no Java here")
async def test_the_java_library_publishes(jars: str, server: RealtimeServer, listeners: tuple[Client, Client]) -> None:
    member, sender = listeners
    given = {
        "host": f"127.0.0.1:{server.port}", "appId": APP_ID, "key": KEY, "secret": SECRET, "socketId": sender.socket_id,
        "body": WEBHOOK, "signature": sign_webhook(SECRET, WEBHOOK.encode()),
    }  # fmt: skip
    saw = json.loads(await output("java", "-cp", jars, "Publish.java", json.dumps(given), cwd=HERE / "java"))

    assert [saw[call] for call in ("trigger", "exclusive", "multi", "batch")] == ["SUCCESS 200 {}"] * 4
    assert saw["channels"] == 'SUCCESS 200 {"channels":{"presence-room":{"user_count":1}}}'
    assert json.loads(saw["channel"].split(" ", 2)[2]) == {"occupied": True, "user_count": 1, "subscription_count": 1}
    assert saw["users"] == 'SUCCESS 200 {"users":[{"id":"7"}]}'
    assert saw["bad"].startswith("CLIENT_ERROR 400 ")
    assert (saw["webhook"], saw["forged webhook"]) == ("VALID", "INVALID")
    events = await heard(member, "second")
    assert events[:2] == [("java", "chat", {"text": "žluť 😀"}), ("not to the sender", "chat", 1)]
    assert [event[0] for event in await heard(sender, "first")] == ["java", "both", "first"]
    await accept(sender, "private-java", json.loads(saw["private"]))
    await accept(sender, "presence-java", json.loads(saw["presence"]))


@pytest.mark.skipif(shutil.which("php") is None or not LARAVEL.is_dir(), reason="no Laravel here")
async def test_laravel_publishes_over_redis() -> None:
    with redis_server() as redis:
        async with (
            realtime_server(redis_url=redis.url, broadcast_driver="redis") as server,
            connected(server.port) as member,
            connected(server.port) as sender,
        ):
            await eventually(lambda: redis.call("PUBSUB", "NUMPAT") == 1)
            for client in (member, sender):
                await client.subscribe("chat")
                await client.subscribe("private-orders.7")
                await client.subscribe("presence-room", {"user_id": "7"})
            given = {"port": redis.port, "socket": sender.socket_id}
            await output("php", "publish.php", json.dumps(given), cwd=HERE / "php")

            to_all = ("OrderShipped", {"order": 7, "text": "žluť 😀", "socket": None})
            to_others = ("OrderShipped", {"order": 7, "text": "žluť 😀", "socket": sender.socket_id})
            assert await heard_by_channel(member, 7) == {
                "chat": [to_all, to_others, ("last", [])],
                "private-orders.7": [to_all, to_others],
                "presence-room": [to_all, to_others],
            }
            assert await heard_by_channel(sender, 4) == {
                "chat": [to_all, ("last", [])], "private-orders.7": [to_all], "presence-room": [to_all],
            }  # fmt: skip
            assert await member.is_quiet()
            assert await sender.is_quiet()
