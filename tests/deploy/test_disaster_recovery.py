"""docs/howto/disaster-recovery.md, executed step by step while users write."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest
from sqlalchemy import make_url
from websockets.asyncio.client import ClientConnection, connect

from kit import processes
from kit.deployment import KEY, Deployment, deployment
from kit.redis import redis_server
from kit.waiting import LIMIT_S, eventually_told

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(420)]
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "disaster-recovery.md"
NAME = "smartlink"


@pytest.fixture
def recovered(tmp_path: Path, postgres_url: str) -> Iterator[Deployment]:
    """A deployment whose database belongs to a user who is no superuser, as on the page."""
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(f'CREATE ROLE "{NAME}" LOGIN')  # type: ignore[call-overload]
        server.execute(f'CREATE DATABASE "{NAME}" OWNER "{NAME}"')  # type: ignore[call-overload]
    url = make_url(postgres_url).set(username=NAME, database=NAME).render_as_string(hide_password=False)
    try:
        with redis_server() as redis, deployment(tmp_path, url, redis) as running:
            yield running
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as server:
            server.execute(f'DROP DATABASE IF EXISTS "{NAME}" WITH (FORCE)')  # type: ignore[call-overload]
            server.execute(f'DROP ROLE "{NAME}"')  # type: ignore[call-overload]


class Operator:
    """Types the page's commands. Where there is no systemd, the services are told by their processes."""

    def __init__(self, deployed: Deployment, postgres_url: str, folder: Path) -> None:
        self._deployed = deployed
        self._folder = folder
        self._services = {"smartlink-app": deployed.app, "smartlink-worker": deployed.worker}
        server = make_url(postgres_url)
        self._environment = deployed.environment | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PGHOST": str(server.host),
            "PGPORT": str(server.port),
            "PGUSER": str(server.username),
            "SSL_CERT_FILE": str(deployed.certificate),
        }
        self.blocks = [block.splitlines() for block in re.findall(r"```sh\n(.*?)\n```", PAGE.read_text(), re.DOTALL)]
        self.typed = 0

    def type_next(self) -> None:
        """The commands of the page's next block."""
        for line in self.blocks[self.typed]:
            words = line.split()
            if words[0] == "systemctl":
                self._tell(words[1], words[2:])
            elif line == "smartlink reverb restart":
                for port in self._deployed.node_ports:
                    own = {
                        "REVERB_SERVER_PORT": str(port),
                        "REVERB_SERVER_RUNTIME_DIR": str(self._deployed.folder / "run"),
                    }
                    self._run(line, own)
            else:
                self._run(line.replace("/var/backups/smartlink", str(self._folder)), {})
        self.typed += 1

    def _tell(self, verb: str, names: list[str]) -> None:
        for name in names:
            service = self._services[name]
            if verb == "stop":
                service.signal(signal.SIGTERM)
                assert service.wait() == 0
            else:
                service.start()
        if verb == "start":
            self._deployed.wait_until_up()

    def _run(self, line: str, settings: dict[str, str]) -> None:
        done = processes.run(
            ["bash", "-c", line], cwd=self._deployed.folder, env=self._environment | settings, capture_output=True,
            text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


class Talk:
    """Somebody who writes to the general room through the proxy."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self.written: list[str] = []

    async def sign_in(self, name: str = "ana") -> None:
        answer = await self._client.post("/api/login", json={"email": f"{name}@example.com", "password": "password"})
        assert answer.status_code == 200, answer.text
        self._client.headers["authorization"] = f"Bearer {answer.json()['token']}"

    async def say(self, text: str) -> int:
        answer = await self._client.post("/api/chat/messages", json={"message": text})
        assert answer.status_code == 201, answer.text
        self.written.append(text)
        return int(answer.json()["id"])

    async def shown(self) -> tuple[list[str], int]:
        """What a page would show, oldest first, and up to which event it is current."""
        answer = await self._client.get("/api/chat/messages?limit=100")
        newest_first = [message["message"] for message in answer.json()]
        texts = newest_first if newest_first[:1] == ["Good morning! Is anybody here?"] else newest_first[::-1]
        return texts, int(answer.headers["x-event-id"])


async def heard(client: ClientConnection, event: str) -> dict[str, object]:
    async with asyncio.timeout(LIMIT_S):
        while True:
            frame: dict[str, object] = json.loads(await client.recv())
            if str(frame["event"]).endswith(event):
                return frame


async def listening(deployed: Deployment) -> ClientConnection:
    address = f"wss://127.0.0.1:{deployed.port}/app/{KEY}?protocol=7"
    client = await connect(address, ssl=deployed.trusting(), origin=deployed.url, ping_interval=None)
    await client.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": "chat"}}))
    await heard(client, "subscription_succeeded")
    return client


async def test_the_disaster_recovery_guide_works_as_written(
    recovered: Deployment, postgres_url: str, tmp_path: Path
) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    operator = Operator(recovered, postgres_url, backups)
    async with httpx2.AsyncClient(base_url=recovered.url, verify=recovered.trusting(), timeout=LIMIT_S) as http:
        talk = Talk(http)
        await talk.sign_in()
        for number in range(3):
            await talk.say(f"kept {number}")
        before = len((await talk.shown())[0])
        listener = await listening(recovered)

        # Every night: while somebody writes.
        backup = asyncio.create_task(asyncio.to_thread(operator.type_next))
        meanwhile = 0
        while not backup.done() and meanwhile < 12:
            await talk.say(f"meanwhile {meanwhile}")
            meanwhile += 1
            await asyncio.sleep(0.5)
        await backup
        last_id = await talk.say("lost")
        frame = await heard(listener, "MessageSent")
        while "lost" not in str(frame["data"]):
            frame = await heard(listener, "MessageSent")
        seen = json.loads(str(frame["data"]))["eventId"]

        # The database is lost.
        with psycopg.connect(postgres_url, autocommit=True) as server:
            server.execute(f'DROP DATABASE "{NAME}" WITH (FORCE)')  # type: ignore[call-overload]
        assert (await http.get("/api/chat/messages")).status_code == 503
        while operator.typed < len(operator.blocks):
            await asyncio.to_thread(operator.type_next)

        # Who was connected was sent away to come back, and is told to load anew.
        await asyncio.wait_for(listener.wait_closed(), LIMIT_S)
        assert listener.close_code == 4200
        await talk.sign_in("ben")
        listener = await listening(recovered)
        asked = (await http.get(f"/api/events?channel=chat&after={seen}")).json()
        assert asked == {"events": [], "complete": False}
        texts, position = await talk.shown()
        assert position > seen
        kept = [text for text in texts if text in talk.written]
        assert kept == talk.written[: len(kept)]
        assert before <= len(texts)
        assert "lost" not in texts

        # The chat goes on: nothing new looks like anything old.
        assert await talk.say("new") > last_id
        frame = await heard(listener, "MessageSent")
        assert json.loads(str(frame["data"]))["eventId"] > position

        async def is_shown_once() -> bool:
            return (await talk.shown())[0].count("new") == 1

        await eventually_told(is_shown_once)
        await listener.close()
