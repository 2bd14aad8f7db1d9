"""The whole system as its user starts it: `smartlink serve` as a process on free ports."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit import processes
from kit.ports import free_port
from kit.preloaded import SMARTLINK as SMARTLINK
from kit.waiting import LIMIT_S


class Smartlink:
    """One `smartlink serve`. Restarted, it comes back on the same ports with the same data."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.app_port = free_port()
        self.realtime_port = free_port()
        self.url = f"http://127.0.0.1:{self.app_port}"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "APP_", "DB_"))} | {
            "APP_PORT": str(self.app_port),
            "REVERB_SERVER_PORT": str(self.realtime_port),
            "REVERB_PORT": str(self.realtime_port),
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'smartlink.db'}",
            **{name.upper(): str(value) for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "serve.log"

    def start(self, timeout_s: float = LIMIT_S) -> None:
        with self.log.open("ab") as log:
            self.process = processes.popen(
                [SMARTLINK, "serve", "--demo"], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"smartlink serve ended at once:\n{self.log.read_text()}")
            try:
                for url in (f"{self.url}/up", f"http://127.0.0.1:{self.realtime_port}/up"):
                    with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
                        answer.read()
                return
            except (OSError, urllib.error.URLError):
                time.sleep(0.05)
        self.process.kill()
        self.process.wait(5)
        raise AssertionError(f"smartlink serve is not up:\n{self.log.read_text()}")

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End it; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(LIMIT_S)
            raise AssertionError(f"smartlink serve does not stop:\n{self.log.read_text()}") from None


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Smartlink]:
    """One that is started, ends well, and had nothing to complain about."""
    started = Smartlink(folder, **settings)
    started.start()
    yield started
    assert started.stop() == 0
    assert "Traceback" not in started.log.read_text()
