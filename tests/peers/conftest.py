"""The npm packages that peers are, installed once from their lock file."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from kit import processes

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="session", autouse=True)
def _packages() -> None:
    with (NODE / "package-lock.json").open() as lock:
        # Of several pytest workers one installs, the others wait.
        fcntl.flock(lock, fcntl.LOCK_EX)
        # npm writes this file last.
        installed = NODE / "node_modules" / ".package-lock.json"
        if not installed.is_file() or installed.stat().st_mtime < Path(lock.name).stat().st_mtime:
            processes.run(
                ["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, capture_output=True, timeout=110
            )
