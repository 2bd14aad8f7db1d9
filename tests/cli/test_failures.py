"""Commands with invalid arguments: a message with advice, an exit code, and no traceback."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from kit import processes
from kit.serve import SMARTLINK

NO_DATABASE = {"DATABASE_URL": "postgresql://u:hidden@127.0.0.1:1/x"}


def run(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "APP_", "DB_", "BROADCAST_"))}
    return processes.run(
        [SMARTLINK, *words], cwd=folder, env=environment | settings, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("migrated")
    assert run(folder, "db", "upgrade").returncode == 0
    return folder


USER = ("user", "create", "--email", "ana@example.com", "--name", "Ana", "--password", "correct horse")


@pytest.mark.parametrize(
    ("words", "settings", "code", "said"),
    [
        (("db", "upgrade", "nope"), {}, 2, "'nope'. This version knows 0001, 0002"),
        (("db", "downgrade", "nope"), {}, 2, "'nope'. This version knows 0001, 0002"),
        (USER, NO_DATABASE, 1, "The database cannot be used (ConnectionRefusedError)"),
        (("app", "start"), NO_DATABASE, 1, "The database cannot be used (ConnectionRefusedError)"),
        (("worker", "start"), NO_DATABASE, 1, "The database cannot be used (ConnectionRefusedError)"),
        (("failed", "list"), NO_DATABASE, 1, "The database cannot be used (ConnectionRefusedError)"),
        (("serve",), {"BROADCAST_DRIVER": "bogus"}, 2, "BROADCAST_DRIVER"),
        (("app", "start"), {"BROADCAST_DRIVER": "bogus"}, 2, "BROADCAST_DRIVER"),
        (("worker", "start"), {"BROADCAST_CONNECTION": "bogus"}, 2, "BROADCAST_DRIVER"),
        (("worker", "start", "--once"), {"BROADCAST_DRIVER": "pusher"}, 2, "PUSHER_APP_ID"),
        (("channels", "check", "1", "private-a"), {"BROADCAST_DRIVER": "ably"}, 2, "ABLY_KEY"),
        (("serve",), {"REDIS_URL": "http://:hidden@x"}, 2, "REDIS_URL is not a valid address"),
        (("app", "start"), {"REDIS_URL": "http://:hidden@x"}, 2, "REDIS_URL is not a valid address"),
        (("reverb", "start"), {"REVERB_APP_ID": "a/b"}, 2, "REVERB_APP_ID=a/b: must not contain / ?"),
        (("reverb", "start"), {"REVERB_APP_KEY": "a:b"}, 2, "REVERB_APP_KEY=…: must not contain / ?"),
        (("reverb", "start"), {"REVERB_APP_ALLOWED_ORIGINS": "https://a.test/"}, 2, "'https://a.test/' is not an origin"),
        (("reverb", "start"), {"REVERB_APP_CORS_ORIGINS": "a.test"}, 2, "'a.test' is not an origin"),
        (("reverb", "start"), {"REVERB_WEBHOOK_EVENTS": "member_aded"}, 2, "did you mean 'member_added'?"),
        (("webhooks", "retry", "abc"), {}, 2, "'abc' is not a batch id; give one, or all"),
        (("user", "create", "--email", "x", "--name", "", "--password", "short"), {}, 1,
         "must not be empty.\nThe email field must be an e-mail address.\nThe password field must"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_reported(
    migrated: Path, words: tuple[str, ...], settings: dict[str, str], code: int, said: str
) -> None:
    done = run(migrated, *words, **settings)

    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert "hidden" not in done.stderr + done.stdout


def test_a_database_without_tables_is_reported(tmp_path: Path) -> None:
    for words in (USER, ("failed", "list"), ("channels", "check", "1", "chat")):
        done = run(tmp_path, *words)

        assert done.returncode == 1
        assert "smartlink db upgrade" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_database_is_downgraded_and_upgraded_stepwise(tmp_path: Path) -> None:
    assert run(tmp_path, "db", "upgrade", "0006").stdout == "The database is at 0006\n"
    assert run(tmp_path, "db", "downgrade", "-1").stdout == "The database is at 0005\n"
    assert run(tmp_path, "db", "upgrade", "+1").stdout == "The database is at 0006\n"


def test_the_version_option_prints_the_version(tmp_path: Path) -> None:
    done = run(tmp_path, "--version")

    assert done.returncode == 0
    assert re.fullmatch(r"\d+\.\d+\S*\n", done.stdout)
