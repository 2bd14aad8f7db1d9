"""The official Go and Java libraries, unmodified, as publishers. They need their toolchains: `make test-peers`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kit.client import Client, connected
from kit.realtime import APP_ID, KEY, SECRET, realtime_server
from smartlink.protocol.signing import sign_webhook
from smartlink.server.lifecycle import RealtimeServer

HERE = Path(__file__).parent
WEBHOOK = json.dumps({"time_ms": 1_700_000_000_000, "events": [{"name": "channel_occupied", "channel": "chat"}]})
IS_ASKED_FOR = os.environ.get("SMARTLINK_TEST_PEERS") == "1"

pytestmark = [
    pytest.mark.skipif(not IS_ASKED_FOR, reason="needs Go and Java: make test-peers"),
    pytest.mark.timeout(300),
]


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running


async def output(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(240):
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


async def accept(client: Client, channel: str, auth: dict[str, Any]) -> None:
    client.send("pusher:subscribe", {"channel": channel} | auth)
    assert (await client.expect("pusher_internal:subscription_succeeded"))["channel"] == channel


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go here")
async def test_go(server: RealtimeServer, listeners: tuple[Client, Client]) -> None:
    member, sender = listeners
    given = {
        "Host": f"127.0.0.1:{server.port}", "AppID": APP_ID, "Key": KEY, "Secret": SECRET, "SocketID": sender.socket_id,
        "Body": WEBHOOK, "Signature": sign_webhook(SECRET, WEBHOOK.encode()),
    }  # fmt: skip
    saw = json.loads(await output("go", "run", ".", json.dumps(given), cwd=HERE / "go"))

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
async def test_java(server: RealtimeServer, listeners: tuple[Client, Client], tmp_path: Path) -> None:
    member, sender = listeners
    given = {
        "host": f"127.0.0.1:{server.port}", "appId": APP_ID, "key": KEY, "secret": SECRET, "socketId": sender.socket_id,
        "body": WEBHOOK, "signature": sign_webhook(SECRET, WEBHOOK.encode()),
    }  # fmt: skip
    jars = tmp_path / "jars"
    await output("mvn", "-q", "-B", "dependency:build-classpath", f"-Dmdep.outputFile={jars}", cwd=HERE / "java")
    saw = json.loads(
        await output("java", "-cp", jars.read_text().strip(), "Publish.java", json.dumps(given), cwd=HERE / "java")
    )

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
