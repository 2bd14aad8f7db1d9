"""`smartlink serve` and its parts, as real processes on free ports in their own folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import processes
from kit.serve import SMARTLINK, Smartlink
from kit.waiting import LIMIT_S


@pytest.fixture
def smartlink(tmp_path: Path) -> Iterator[Smartlink]:
    running = Smartlink(tmp_path)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


def command(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REVERB_", "APP_", "DB_"))}
    return processes.run(
        [SMARTLINK, *arguments], cwd=folder, env=kept | (environment or {}), capture_output=True, text=True,
    )  # fmt: skip


def wait_for(url: str, timeout_s: float = LIMIT_S) -> int:
    """The status of `url` once something answers there."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
                return int(answer.status)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def wait_for_a_worker(database: Path, timeout_s: float = LIMIT_S) -> None:
    """Until a worker has said that it lives; before, a signal would end it as any process."""
    until = time.monotonic() + timeout_s
    with contextlib.closing(sqlite3.connect(database)) as connection:
        while not connection.execute("SELECT count(*) FROM outbox_workers").fetchone()[0]:
            assert time.monotonic() < until, "no worker"
            time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_the_demo_accounts_and_stops_cleanly(smartlink: Smartlink, how: int) -> None:
    smartlink.start()
    code = smartlink.stop(how)

    said = smartlink.log.read_text()
    assert code == 0
    assert smartlink.url in said
    for address in ("ana@example.com", "ben@example.com", "admin@example.com"):
        assert address in said
    assert "Traceback" not in said
    assert "app-secret" not in said


def test_a_restarted_server_has_the_same_data(smartlink: Smartlink) -> None:
    smartlink.start()
    assert smartlink.stop() == 0
    smartlink.start()

    with urllib.request.urlopen(f"{smartlink.url}/api/realtime", timeout=LIMIT_S) as answer:
        assert json.load(answer)["port"] == smartlink.realtime_port
    assert smartlink.stop() == 0


@pytest.mark.parametrize("variable", ["APP_PORT", "REVERB_SERVER_PORT"])
def test_the_error_for_a_port_in_use_names_the_variable_to_change(tmp_path: Path, variable: str) -> None:
    smartlink = Smartlink(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = command(tmp_path, "serve", environment=smartlink.environment | {variable: port})

    assert done.returncode == 1
    assert port in done.stderr
    assert variable in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("variable", "words"),
    [("APP_HOST", ("serve",)), ("REVERB_SERVER_HOST", ("serve",)), ("REVERB_SERVER_HOST", ("reverb", "start"))],
)
def test_the_error_for_an_invalid_host_names_the_variable_to_change(
    tmp_path: Path, variable: str, words: tuple[str, ...]
) -> None:
    secret = {"REVERB_APP_SECRET": "x" * 40}
    done = command(tmp_path, *words, environment=Smartlink(tmp_path).environment | secret | {variable: "host.invalid"})

    assert done.returncode == 1
    assert "host.invalid" in done.stderr
    assert variable in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REVERB_SERVER_PORT", "abc"),
        ("APP_PORT", "99999"),
        ("REVERB_APP_PING_INTERVAL", "0"),
        ("REVERB_WEBHOOK_URL", "ftp://secret-word@example.com/hook"),
        ("REVERB_WEBHOOK_URL", "example.com/hook"),
        ("DB_CONNECTION", "oracle"),
        ("DATABASE_URL", "mysql://user:secret-word@host/db"),
    ],
)
def test_a_bad_setting_stops_the_start_and_is_named(tmp_path: Path, variable: str, value: str) -> None:
    done = command(tmp_path, "serve", environment={variable: value})

    assert done.returncode == 2
    assert variable in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret-word" not in done.stderr


def test_a_missing_database_is_reported(tmp_path: Path) -> None:
    done = command(tmp_path, "serve", environment={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})

    assert done.returncode == 1
    assert "DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["APP_HOST", "REVERB_SERVER_HOST"])
def test_sample_secrets_are_refused_outside_loopback(tmp_path: Path, host: str) -> None:
    done = command(tmp_path, "serve", environment={host: "0.0.0.0"})

    assert done.returncode == 2
    assert "REVERB_APP_SECRET" in done.stderr


def test_the_exit_code_of_status_says_up_or_down(smartlink: Smartlink) -> None:
    down = command(smartlink.folder, "reverb", "status", "--json", environment=smartlink.environment)
    assert down.returncode == 1
    assert json.loads(down.stdout)["state"] == "down"
    smartlink.start()

    up = command(smartlink.folder, "reverb", "status", "--json", environment=smartlink.environment)
    assert up.returncode == 0
    assert json.loads(up.stdout)["connections"] == 0


def test_install_writes_keys_once_and_keeps_other_lines(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("APP_PORT=9000\n")

    assert command(tmp_path, "reverb", "install").returncode == 0
    first = (tmp_path / ".env").read_text()
    assert command(tmp_path, "reverb", "install").returncode == 1
    assert (tmp_path / ".env").read_text() == first
    assert command(tmp_path, "reverb", "install", "--force").returncode == 0

    assert "APP_PORT=9000" in first
    assert "REVERB_APP_SECRET=" in first
    assert (tmp_path / ".env").read_text() != first


def test_users_and_rules_from_the_command_line(tmp_path: Path) -> None:
    environment = Smartlink(tmp_path).environment
    assert command(tmp_path, "db", "upgrade", environment=environment).returncode == 0
    made = command(
        tmp_path, "user", "create", "--admin", "--email", "eve@example.com", "--name", "Eve", "--password",
        "long enough", environment=environment,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    again = command(
        tmp_path, "user", "create", "--email", "EVE@example.com", "--name", "Eve", "--password", "long enough",
        environment=environment,
    )  # fmt: skip
    assert again.returncode == 1
    assert "taken" in again.stderr
    own = command(tmp_path, "channels", "check", "1", "private-user.1", environment=environment)
    other = command(tmp_path, "channels", "check", "1", "private-user.2", environment=environment)
    assert (own.returncode, other.returncode) == (0, 1)
    assert "user.{" in command(tmp_path, "channels", "list", environment=environment).stdout
    assert "No failed events" in command(tmp_path, "failed", "list", environment=environment).stdout
    assert command(tmp_path, "db", "downgrade", "base", environment=environment).returncode == 0


def test_every_part_runs_alone(tmp_path: Path) -> None:
    environment = Smartlink(tmp_path).environment
    command(tmp_path, "seed", environment=environment)
    parts = [("reverb", "start"), ("app", "start"), ("worker", "start")]
    started = [
        processes.popen([SMARTLINK, *part], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) for part in parts
    ]
    try:
        for url in (f"http://127.0.0.1:{environment[name]}/up" for name in ("APP_PORT", "REVERB_SERVER_PORT")):
            assert wait_for(url) == 200
        wait_for_a_worker(tmp_path / "smartlink.db")
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(LIMIT_S) for process in started]
    assert codes == [0, 0, 0]
