"""Webhooks over a restart or a kill of the server, and the commands for failed ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any, Self

from kit import processes
from kit.client import connected
from kit.ports import free_port
from kit.receiver import Receiver, receiver
from kit.serve import SMARTLINK
from kit.waiting import LIMIT_S, eventually, eventually_told
from server.webhook_sink import ANA, BEN, CHANNEL_EVENTS, MEMBER_EVENTS

COMING = {"channel_occupied", "member_added"}


class Server:
    """`smartlink reverb start` in a process of its own."""

    def __init__(self, folder: Path, target: Receiver, **settings: str) -> None:
        self.folder, self.port = folder, free_port()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "APP_"))} | {
            "REVERB_SERVER_PORT": str(self.port),
            "REVERB_WEBHOOK_URL": target.url,
            "REVERB_WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{target.port}",
            "REVERB_WEBHOOK_GRACE": "0.2",
            "REVERB_WEBHOOK_RESTART_GRACE": "0.5",
            "REVERB_WEBHOOK_TIMEOUT": "0.5",
            # A client is not ended because this test's own loop, or the machine, has no time for its pongs.
            "REVERB_APP_PING_INTERVAL": "600",
            **settings,
        }
        self.log = folder / "server.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = processes.popen(
                [SMARTLINK, "reverb", "start"], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )

    async def __aenter__(self) -> Self:
        self.start()

        async def listens() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        await eventually_told(listens, what=f"a server that listens: {self.log}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGTERM)

    async def end(self, how: int) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return await asyncio.to_thread(self.process.wait, LIMIT_S)

    def command(self, *words: str) -> tuple[int, str]:
        done = processes.run([SMARTLINK, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


async def test_events_queued_before_a_kill_are_delivered_by_the_next_process(tmp_path: Path) -> None:
    async with receiver(then=503) as target:
        server = Server(tmp_path, target)
        async with server:
            async with connected(server.port) as ana:
                await ana.subscribe("presence-chat", ANA)
                await eventually(lambda: {e["name"] for post in target.refused for e in post["events"]} == COMING)
                await server.end(signal.SIGKILL)
        target.then = 200
        async with server:
            await eventually(lambda: len(target.events) == 4)

    assert [name for name in target.names if name in MEMBER_EVENTS] == MEMBER_EVENTS
    assert [name for name in target.names if name in CHANNEL_EVENTS] == CHANNEL_EVENTS


async def test_a_restart_posts_nothing_about_returning_users(tmp_path: Path) -> None:
    async with receiver() as target:
        server = Server(tmp_path, target, REVERB_WEBHOOK_RESTART_GRACE="12")
        async with server:
            async with connected(server.port) as ana, connected(server.port) as ben:
                await ana.subscribe("presence-chat", ANA)
                await ben.subscribe("presence-chat", BEN)
                await eventually(lambda: len(target.events) == 3)
                assert await server.end(signal.SIGTERM) == 0
        async with server, connected(server.port) as ana:
            await ana.subscribe("presence-chat", ANA)
            await eventually(lambda: len(target.events) == 4)

    assert target.events[3] == {"name": "member_removed", "channel": "presence-chat", "user_id": "2"}
    assert "Traceback" not in server.log.read_text()


async def test_commands_list_replay_and_delete_failed_webhooks(tmp_path: Path) -> None:
    async with receiver(then=500) as target:
        server = Server(tmp_path, target, REVERB_WEBHOOK_RETRY_SECONDS="0")
        code, said = await asyncio.to_thread(server.command, "webhooks", "failed")
        assert (code, "There is no queue at" in said) == (1, True)
        async with server, connected(server.port) as ana:
            await ana.subscribe("chat")
            await eventually(lambda: target.refused)

            async def failed() -> list[dict[str, Any]]:
                code, said = await asyncio.to_thread(server.command, "webhooks", "failed", "--json")
                assert code == 0
                found: list[dict[str, Any]] = json.loads(said)
                return found

            while not (batches := await failed()):
                pass
            assert (batches[0]["reason"], batches[0]["events"][0]["name"]) == ("answered 500", "channel_occupied")
            target.then = 200
            code, said = await asyncio.to_thread(server.command, "webhooks", "retry", str(batches[0]["id"]))
            assert (code, said) == (0, "1 batch queued again\n")
            await eventually(lambda: target.names == ["channel_occupied"])
            assert (await asyncio.to_thread(server.command, "webhooks", "failed"))[1] == "No failed webhooks\n"
            assert await asyncio.to_thread(server.command, "webhooks", "forget", "all") == (0, "0 batches deleted\n")
            code, said = await asyncio.to_thread(server.command, "webhooks", "retry", "x")
            assert (code, said) == (2, "'x' is not a batch id; give one, or all\n")
