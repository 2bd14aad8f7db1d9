"""Services as an operator has them: processes with a log, which can be signalled, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from kit import processes
from kit.waiting import LIMIT_S

__all__ = ["Service"]


class Service:
    """One process and what it started."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def runs(self, program: str) -> None:
        """From its next start on: another version of the program."""
        self._command = [program, *self._command[1:]]

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = processes.popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def signal(self, how: int) -> None:
        assert self._process is not None
        self._process.send_signal(how)

    def wait(self, timeout_s: float = LIMIT_S) -> int:
        """The exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """As `kill -9`, the processes that it started too."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            self._process.wait(LIMIT_S)

    def end(self) -> None:
        """Stop it as an operator does; then for good."""
        if self.is_running:
            self.signal(signal.SIGTERM)
            try:
                self.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} does not stop:\n{self.said[-3000:]}") from None
        self.kill()
