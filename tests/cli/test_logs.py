"""The log of a busy server: JSON, without secrets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cli.test_serving import wait_for
from kit import processes
from kit.client import connected
from kit.ports import free_port
from kit.realtime import APP_ID, KEY, call
from kit.serve import SMARTLINK
from kit.waiting import LIMIT_S
from kit.xhr import XhrClient

SECRET = "s3cret-that-nobody-may-read-0123456789"
BODY = "what-they-said-to-each-other"
CLOSED = f'smartlink_connections_closed_total{{app_id="{APP_ID}"}}'
PUBLISHED = f'smartlink_publications_total{{app_id="{APP_ID}"}}'
TOKEN = re.compile(r"[0-9a-f]{64}")
"""What a signature looks like."""


class Server:
    """`smartlink reverb start` with its log in a file."""

    def __init__(self, folder: Path, *options: str, **settings: Any) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.log = folder / "log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REVERB_")} | {
            "REVERB_SERVER_PORT": str(self.port),
            "REVERB_APP_SECRET": SECRET,
            "REVERB_METRICS_ENABLED": "true",
            "REVERB_METRICS_PORT": str(self.metrics_port),
            **{name.upper(): str(value) for name, value in settings.items()},
        }
        with self.log.open("wb") as log:
            self.process = processes.popen(
                [SMARTLINK, "reverb", "start", *options], cwd=folder, env=environment, stdout=log, stderr=log
            )
        wait_for(f"http://127.0.0.1:{self.port}/up")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S)

    def samples(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=LIMIT_S) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


async def use(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect, subscribe, publish, misbehave."""
    for module in ("kit.client", "kit.xhr"):
        monkeypatch.setattr(f"{module}.SECRET", SECRET)
    async with connected(port) as ana, connected(port) as ben, XhrClient(port, port) as cem:
        for client in (ana, ben):
            await client.subscribe("presence-room", {"user_id": "1", "user_info": {"name": BODY}})
        await cem.subscribe("private-room")
        ana.send("client-a", {"text": BODY}, channel="presence-room")
        while (await ben.receive())["event"] != "client-a":
            pass  # of the other worker's member it may hear first
        ana.send_text(f'{{"event": "{BODY}"')
        await ana.expect("pusher:error")
        ana.send("pusher:subscribe", {"channel": "private-x", "auth": f"{KEY}:{'a' * 64}"})
        await ana.expect("pusher:subscription_error")
        ben.send_frame(1, b"\xff\xfe" + BODY.encode())
        assert (await ben.closed()).code == 1007
        event = json.dumps({"name": "e", "channel": "private-room", "data": BODY}).encode()
        assert (await call(port, "POST", f"/apps/{APP_ID}/events", event, secret=SECRET)).status_code == 200
        assert (await call(port, "POST", f"/apps/{APP_ID}/events", event, secret="wrong")).status_code == 401
        assert (
            await call(port, "POST", f"/apps/{APP_ID}/events", b"{" + BODY.encode(), secret=SECRET)
        ).status_code == 400
        await cem.expect("e")
        await cem.post(f'["{BODY}"'.encode(), status=400)


@pytest.mark.parametrize(("workers", "options"), [(1, ["--debug"]), (2, [])], ids=["debug", "workers"])
async def test_a_busy_server_logs_json_and_no_secrets_and_is_scraped_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, options: list[str]
) -> None:
    server = Server(tmp_path, *options, reverb_server_workers=workers)
    try:
        await use(server.port, monkeypatch)
        samples = server.samples()
        # Each worker reports once a second on its own: none open may be said before any were.
        while samples.get(CLOSED) != 3 or samples.get(PUBLISHED) != 2 or samples["smartlink_workers_ready"] != workers:
            await asyncio.sleep(0.1)  # the test's own limit ends this
            samples = server.samples()
    finally:
        assert server.stop() == 0

    assert samples[f'smartlink_connections_opened_total{{app_id="{APP_ID}"}}'] == 3
    assert samples[f'smartlink_connections{{app_id="{APP_ID}"}}'] == 0
    assert len([name for name in samples if name.startswith("smartlink_resident_memory_bytes{")]) == workers
    text = server.log.read_text()
    assert SECRET not in text
    assert options or BODY not in text  # --debug is for reading along; it hides signatures alone
    assert TOKEN.search(text) is None
    assert re.search("auth_signature=[^…]", text) is None
    assert "Traceback" not in text
    logged = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert any(entry["event"] == "realtime server listening" for entry in logged)
    assert all({"event", "level", "timestamp"} <= entry.keys() for entry in logged)


def test_a_metrics_port_in_use_is_reported_in_a_sentence(tmp_path: Path) -> None:
    first = Server(tmp_path)
    try:
        environment = os.environ | {
            "REVERB_SERVER_PORT": str(free_port()),
            "REVERB_METRICS_ENABLED": "true",
            "REVERB_METRICS_PORT": str(first.metrics_port),
        }
        done = processes.run(
            [SMARTLINK, "reverb", "start"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        assert first.stop() == 0

    assert done.returncode != 0
    assert f"REVERB_METRICS_PORT={first.metrics_port}" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("on_a_terminal", [False, True])
def test_tracebacks_do_not_show_the_values_of_variables(on_a_terminal: bool) -> None:
    program = """
import sys
import structlog
from smartlink.cli.logs import configure
sys.stderr.isatty = lambda: TERMINAL
configure()

def fail(value):
    raise RuntimeError("broken")

try:
    fail("".join(["s3cret", "-value"]))
except RuntimeError:
    structlog.get_logger().exception("internal error")
"""
    done = processes.run(
        [sys.executable, "-c", program.replace("TERMINAL", str(on_a_terminal))],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "broken" in done.stderr
    assert "s3cret-value" not in done.stderr


def test_log_lines_of_several_workers_are_not_interleaved() -> None:
    say = (
        "import logging, structlog\n"
        "from smartlink.cli import logs\n"
        "logs.configure()\n"
        "structlog.get_logger().info('a structured line')\n"
        "logging.getLogger('smartlink').info('a plain line')\n"
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        processes.run([sys.executable, "-c", say], stderr=theirs, env=environment, check=True)
        written = [ours.recv(65_536) for _ in range(2)]

    assert [json.loads(write)["event"] for write in written] == ["a structured line", "a plain line"]
    assert all(write.endswith(b"\n") for write in written)
