"""`smartlink db backup` and `restore`, with `smartlink serve` running."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import httpx2

from kit import processes
from kit.serve import SMARTLINK, Smartlink
from kit.waiting import LIMIT_S


def sign_in(client: httpx2.Client) -> None:
    answer = client.post("/api/login", json={"email": "ana@example.com", "password": "password"})
    client.headers["authorization"] = f"Bearer {answer.json()['token']}"


def say(client: httpx2.Client, text: str) -> int:
    answer = client.post("/api/chat/messages", json={"message": text})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def shown(client: httpx2.Client) -> list[str]:
    return [message["message"] for message in client.get("/api/chat/messages").json()]


def test_a_restore_returns_to_the_backup_and_ids_continue_after_it(tmp_path: Path) -> None:
    running = Smartlink(tmp_path)

    def command(*words: str) -> subprocess.CompletedProcess[Any]:
        return processes.run(
            [SMARTLINK, "db", *words], cwd=tmp_path, env=running.environment, capture_output=True, text=True
        )

    running.start()
    with httpx2.Client(base_url=running.url, timeout=LIMIT_S) as client:
        try:
            sign_in(client)
            say(client, "kept")
            taken = command("backup", "backups/")
            file = taken.stdout.split()[0]
            lost = say(client, "lost")
            in_use = command("restore", file, "--force")
        finally:
            running.stop()
        unasked, restored = command("restore", file), command("restore", file, "--force")
        running.start()
        try:
            # The token was there when the backup was taken.
            assert "kept" in shown(client)
            assert "lost" not in shown(client)
            assert say(client, "new") > lost
            assert client.get("/api/events?channel=chat&after=100").json()["complete"] is False
        finally:
            assert running.stop() == 0

    assert taken.returncode == 0, taken.stderr
    assert file.startswith("backups/smartlink-")
    assert (in_use.returncode, "in use: stop `smartlink serve`" in in_use.stderr) == (1, True)
    assert (unasked.returncode, "--force" in unasked.stderr) == (1, True)
    assert restored.stdout.startswith("Restored the backup of ")
    missing = command("restore", "nothing.backup", "--force")
    assert (missing.returncode, missing.stderr) == (1, "nothing.backup does not exist.\n")
