"""Applications under ASGI servers, each a process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit import processes
from kit.ports import free_port
from kit.waiting import LIMIT_S, wait_until

__all__ = ["ASGI_SERVERS", "command_of", "served_by"]

ASGI_SERVERS = ("uvicorn", "hypercorn", "granian")


def command_of(server: str, port: int, workers: int = 1) -> list[str]:
    """The command that serves `main:app` on a port."""
    own = {
        "uvicorn": ["main:app", "--port", str(port), "--log-level", "warning"],
        "hypercorn": ["main:app", "--bind", f"127.0.0.1:{port}", "--log-level", "warning"],
        "granian": ["main:app", "--interface", "asgi", "--port", str(port), "--log-level", "warning"],
    }[server]
    return [sys.executable, "-m", server, *own, "--workers", str(workers)]


@contextmanager
def served_by(server: str, folder: Path, application: str, *, workers: int = 1, **environment: str) -> Iterator[int]:
    """Serve an application's source text; its port, once it accepts connections. What it prints goes to `printed`."""
    (folder / "main.py").write_text(application)
    port = free_port()
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REVERB_", "REDIS_"))}
    with (folder / "printed").open("w") as output:
        process = processes.popen(
            command_of(server, port, workers), cwd=folder, env=own | environment,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def is_up() -> bool:
        assert process.poll() is None, (folder / "printed").read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    try:
        wait_until(is_up)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
