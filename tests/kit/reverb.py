"""`smartlink reverb start` as a process, on a free port, in its own folder."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit import processes
from kit.ports import free_port
from kit.serve import SMARTLINK
from kit.waiting import LIMIT_S, wait_until

__all__ = ["Reverb", "reverb"]


class Reverb:
    """One running server and its commands."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "reverb.log"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "APP_", "DB_"))}
        self.environment = kept | {
            "REVERB_SERVER_PORT": str(self.port),
            "REVERB_PORT": str(self.port),
            "REVERB_SERVER_RUNTIME_DIR": str(folder / "run"),
            "REVERB_SERVER_DRAIN_SECONDS": "0.5",
            "REVERB_WEBHOOK_QUEUE": "" if settings.get("reverb_scaling_enabled") else "memory",
            **{name.upper(): str(value) for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes]

    def start(self, *arguments: str, before: Any = None) -> None:
        with self.log.open("ab") as log:
            self.process = processes.popen(
                [SMARTLINK, "reverb", "start", *arguments], cwd=self.folder, env=self.environment, stdout=log,
                stderr=log, preexec_fn=before,
            )  # fmt: skip

        def is_up() -> bool:
            said = self.said
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{said}"
            return "Realtime server:" in said

        wait_until(is_up, what=f"a server that is up: {self.log}")

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def workers(self) -> list[int]:
        """The pids of the processes that the server started."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def command(self, *words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return processes.run(
            [SMARTLINK, "reverb", *words], cwd=self.folder, env=self.environment | (environment or {}),
            capture_output=True, text=True,
        )  # fmt: skip

    def signal(self, how: int) -> None:
        self.process.send_signal(how)

    def wait(self, timeout_s: float = LIMIT_S) -> int:
        """The exit code."""
        return self.process.wait(timeout_s)

    def end(self) -> None:
        """End it and all it started, whatever the test did."""
        children = self.workers() if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(LIMIT_S)
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def reverb(folder: Path, *arguments: str, before: Any = None, **settings: Any) -> Iterator[Reverb]:
    """A running server; at the end it is ended, and has said nothing that looks like a bug of ours."""
    running = Reverb(folder, settings)
    running.start(*arguments, before=before)
    try:
        yield running
    finally:
        running.end()
    assert "Traceback" not in running.said, running.said
    assert "internal error" not in running.said, running.said
