"""The worker and outbox commands, as processes with their own database."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from broadcasting.outbox_database import envelope, open_engine
from cli.test_serving import command
from kit.pusher_service import PusherService, pusher_service
from kit.serve import Smartlink
from smartlink.broadcasting.outbox import Outbox


async def run(folder: Path, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(command, folder, *arguments, environment=environment)


def reaching(service: PusherService) -> dict[str, str]:
    return {
        "BROADCAST_DRIVER": "pusher",
        "PUSHER_APP_ID": service.app_id,
        "PUSHER_APP_KEY": service.key,
        "PUSHER_APP_SECRET": service.secret,
        "PUSHER_HOST": "127.0.0.1",
        "PUSHER_PORT": str(service.port),
        "PUSHER_SCHEME": "http",
    }


async def record(folder: Path, environment: dict[str, str], *numbers: int) -> None:
    engine, tables = open_engine(f"sqlite+aiosqlite:///{folder / 'outbox.db'}")
    async with engine.begin() as connection:
        await Outbox(tables).record(connection, [envelope(number) for number in numbers])
    await engine.dispose()


@pytest.mark.timeout(300)
async def test_commands_send_list_and_delete_events(tmp_path: Path) -> None:
    async with pusher_service() as service:
        environment = Smartlink(tmp_path).environment | reaching(service)
        environment["DATABASE_URL"] = f"sqlite:///{tmp_path / 'outbox.db'}"
        assert (await run(tmp_path, "db", "upgrade", environment=environment)).returncode == 0
        await record(tmp_path, environment, 1, 2, 3)

        idle = await run(tmp_path, "worker", "status", "--json", environment=environment)
        report = json.loads(idle.stdout)
        assert idle.returncode == 1
        assert report["waiting"] == 3
        assert report["problems"] == ["No worker is running, so no events are sent. Start one: smartlink worker start"]

        service.answers = lambda call: 413 if any('"n":2' in event["data"] for event in call.events) else 200
        worked = await run(tmp_path, "worker", "start", "--stop-when-empty", environment=environment)
        assert worked.returncode == 0, worked.stderr
        assert "Traceback" not in worked.stderr
        assert [payload["n"] for payload in service.payloads()] == [1, 3]

        listed = await run(tmp_path, "failed", "list", "--json", environment=environment)
        [failed] = json.loads(listed.stdout)
        assert "413" in failed["error"]
        assert failed["channel"] == "private-a"

        service.answers = lambda _: 200
        retried = await run(tmp_path, "failed", "retry", str(failed["id"]), environment=environment)
        assert retried.stdout == "1 event queued again\n"
        once = await run(tmp_path, "worker", "start", "--once", environment=environment)
        assert once.stdout == "1 sent\n", once.stderr
        assert [payload["n"] for payload in service.payloads()] == [1, 3, 2]
        again = await run(tmp_path, "failed", "retry", str(failed["id"]), environment=environment)
        assert (again.returncode, "There is no failed event" in again.stderr) == (1, True)
        nothing = await run(tmp_path, "failed", "forget", "all", environment=environment)
        assert (nothing.returncode, "There are no failed events" in nothing.stderr) == (1, True)

        triggered = await run(tmp_path, "event", "trigger", "chat", "hello", '{"a": "é"}', environment=environment)
        assert triggered.returncode == 0, triggered.stderr
        assert service.taken[-1] == {"name": "hello", "channel": "chat", "data": '{"a":"é"}'}


WRONG = [
    (["event", "trigger", "no channel", "hello", "{}"], "is not a channel name"),
    (["event", "trigger", "chat", "pusher:hello", "{}"], "is not an event name"),
    (["event", "trigger", "chat", "hello", "[1]"], "must be a JSON object"),
    (["event", "trigger", "chat", "hello", "{"], "is not JSON"),
    (["worker", "start", "--queue", "a b"], "is not a queue name"),
    (["failed", "retry", "x"], "is not an event id"),
    (["channels", "check", "x", "private-a"], "is not a user id"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_errors_are_reported_in_one_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = command(tmp_path, *arguments, environment=Smartlink(tmp_path).environment)

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
