"""`smartlink reverb restart`: under load no client is refused and no event is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import httpx2
import pytest

from kit.client import Client, Closed, connected, raw
from kit.realtime import KEY, SECRET, call
from kit.reverb import Reverb, reverb
from kit.waiting import LIMIT_S, eventually
from smartlink.protocol.signing import signed_query

CLIENTS = 8
PATH = "/apps/1001/events"
DONE = "done"


class Load:
    """Clients that come back when told to, and a publisher that numbers what it publishes."""

    def __init__(self, server: Reverb) -> None:
        self.port = server.port
        self.published = 0
        self.reconnects = 0
        self.is_over = False
        self.codes: set[int | None] = set()
        self.sessions: list[list[int]] = []
        """What each connection heard between its subscription and its end."""

    async def publish(self) -> None:
        """One call at a time, each over a connection of its own: all must be answered 200."""
        while not self.is_over:
            body = json.dumps({"name": str(self.published), "channel": "presence-chat", "data": ""}).encode()
            query = signed_query(KEY, SECRET, "POST", PATH, body, timestamp=int(time.time()))
            async with raw(self.port) as client:
                head = f"POST {PATH}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                client.writer.write(head.encode() + body)
                async with asyncio.timeout(LIMIT_S):
                    answer = await client.reader.readuntil(b"\r\n")
            assert b" 200 " in answer, answer
            self.published += 1

    async def publish_over_one_connection(self) -> None:
        """Kept alive as the library does: what the server ends is opened again, nothing else may go wrong."""
        async with httpx2.AsyncClient(verify=False, trust_env=False) as http:
            while not self.is_over:
                answer = await http.get(f"http://127.0.0.1:{self.port}/up")
                assert answer.status_code in (200, 503)
                await asyncio.sleep(0.001)

    async def listen(self, user: int) -> None:
        while True:
            async with connected(self.port) as client:
                if not client.socket_id:
                    # Accepted by the old one, which sends it to the new one.
                    self.codes.add(client.refusal["code"])  # type: ignore[attr-defined]
                    continue
                heard: list[int] = []
                try:
                    state = await client.subscribe("presence-chat", {"user_id": str(user)})
                    assert str(user) in state["presence"]["ids"]
                    self.sessions.append(heard)
                    while True:
                        name = (await client.receive())["event"]
                        if name == DONE:
                            return
                        if name.isdigit():
                            heard.append(int(name))
                except Closed as closed:
                    self.codes.add(closed.code)
                    client.send_frame(8, (4200).to_bytes(2, "big"))
                    self.reconnects += 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_restart_under_load_refuses_no_client_and_loses_no_event(tmp_path: Path, workers: int) -> None:
    with reverb(tmp_path, "--workers", str(workers)) as server:
        load = Load(server)
        listeners = [asyncio.create_task(load.listen(number)) for number in range(CLIENTS)]
        publishers = [asyncio.create_task(load.publish()), asyncio.create_task(load.publish_over_one_connection())]
        await eventually(lambda: load.published > 20 and len(load.sessions) == CLIENTS)
        first = server.workers()

        def all_are_back(turn: int) -> bool:
            for listener in listeners:
                if listener.done():
                    listener.result()
            return load.reconnects >= turn * CLIENTS and len(load.sessions) >= (turn + 1) * CLIENTS

        for turn in (1, 2):
            before = load.published
            done = await asyncio.to_thread(server.command, "restart")
            assert done.returncode == 0, done.stderr
            assert f"process {server.process.pid}" in done.stdout
            # Everybody was told to come back, has done so, and publishing went on.
            await eventually(lambda turn=turn: all_are_back(turn))
            await eventually(lambda before=before: load.published > before + 20)
        await eventually(lambda: len(server.workers()) == workers)
        assert not set(first) & set(server.workers())
        load.is_over = True
        await asyncio.gather(*publishers)
        last = json.dumps({"name": DONE, "channel": "presence-chat", "data": ""}).encode()
        await call(server.port, "POST", "/apps/1001/events", last)
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*listeners)

        assert len(load.sessions) >= 3 * CLIENTS
        for heard in load.sessions:
            assert heard == list(range(heard[0], heard[0] + len(heard))) if heard else True
        assert load.codes == {4200}
        assert {session[-1] for session in load.sessions[-CLIENTS:]} == {load.published - 1}
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.wait) == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_successor_that_cannot_start_changes_nothing(tmp_path: Path, workers: int) -> None:
    with reverb(tmp_path, "--workers", str(workers)) as server:
        async with connected(server.port) as client:
            await client.subscribe("chat")
            before = server.workers()
            (tmp_path / ".env").write_text("REVERB_SERVER_TLS_CERT=nowhere.pem\nREVERB_SERVER_TLS_KEY=nowhere.pem\n")

            done = await asyncio.to_thread(server.command, "restart")

            assert done.returncode == 1
            assert "nowhere.pem" in done.stderr
            assert "The old server keeps running" in done.stderr
            assert server.workers() == before
            assert await client.is_quiet()
            (tmp_path / ".env").unlink()
            assert (await asyncio.to_thread(server.command, "restart")).returncode == 0
            assert (await client.closed()).code == 4200


async def test_the_successor_has_the_new_settings_and_the_kept_events(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "1") as server:
        body = b'{"name":"kept","channel":"cache-a","data":""}'
        headers = {"Idempotency-Key": "k"}
        await call(server.port, "POST", "/apps/1001/events", body, headers=headers)
        (tmp_path / ".env").write_text("REVERB_APP_MAX_CHANNELS=1\n")
        assert (await asyncio.to_thread(server.command, "restart")).returncode == 0

        async with connected(server.port) as client:
            await client.subscribe("cache-a")
            await client.expect("kept")
            again = await call(server.port, "POST", "/apps/1001/events", body, headers=headers)
            assert again.status_code == 200
            assert await client.is_quiet()
            client.send("pusher:subscribe", {"channel": "chat"})
            assert (await client.receive())["event"] in ("pusher:error", "pusher:subscription_error")


def test_without_a_server_the_command_says_so(tmp_path: Path) -> None:
    done = Reverb(tmp_path, {}).command("restart")

    assert done.returncode == 3
    assert "smartlink reverb start" in done.stderr


def test_only_the_servers_user_may_control_it(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "1") as server:
        sockets = list((tmp_path / "run").iterdir())

        assert {socket.stat().st_mode & 0o777 for socket in sockets} == {0o600}
        assert len(sockets) == 2  # for commands, and for operators
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
        assert server.process.poll() is None
    assert list((tmp_path / "run").iterdir()) == []


async def test_old_connections_receive_the_successors_events_until_they_are_closed(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "1", reverb_server_drain_seconds=5) as server:
        client: Client
        async with connected(server.port) as client:
            await client.subscribe("presence-chat", {"user_id": "1"})
            restarting = asyncio.create_task(asyncio.to_thread(server.command, "restart"))
            assert (await client.closed()).code == 4200
            assert (await restarting).returncode == 0
        async with connected(server.port) as successor:
            state = await successor.subscribe("presence-chat", {"user_id": "2"})
            assert state["presence"]["ids"] == ["2"]
