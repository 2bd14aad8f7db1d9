"""Processes that tests start: they end with the test process, however that ends.

The kernel kills a process when the thread that started it is gone (`prctl(2)`, PR_SET_PDEATHSIG). `setpriv` asks for
that and becomes the command, so the process id is the command's own. What a command starts itself must end with it;
`scripts/guard.py` ends whatever is left of a run of `make test`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kit import preloaded
from kit.parents import SETPRIV, end_with_parent
from kit.waiting import LIMIT_S

__all__ = ["end_with_parent", "leashed", "needs_server", "popen", "run", "spawn"]

_PRELOADED = {"cwd", "env", "capture_output", "text"}
"""Options with which a command of ours may run in a process that has imported it already."""


def needs_server(name: str) -> None:
    """Say before a database server is started that the test needs it: `make test-fast` skips the test."""
    if os.environ.get("SMARTLINK_TEST_FAST"):
        pytest.skip(f"needs {name}")


def _skip_in_fast_runs(command: Sequence[str]) -> None:
    if os.environ.get("SMARTLINK_TEST_FAST"):
        pytest.skip(f"starts {command[0]}")


def leashed(command: Sequence[str], ends_by: signal.Signals = signal.SIGKILL) -> list[str]:
    """The command, sent `ends_by` when the thread that starts it is gone. On systems without setpriv, as it is.

    `make test-fast` skips the test.
    """
    _skip_in_fast_runs(command)
    if SETPRIV is None:
        return list(command)
    return [SETPRIV, "--pdeathsig", ends_by.name.removeprefix("SIG"), *command]


def popen(command: Sequence[str], *, ends_by: signal.Signals = signal.SIGKILL, **options: Any) -> subprocess.Popen[Any]:
    """As `subprocess.Popen`. Started by another thread than the first one, the process outlives that thread."""
    if threading.current_thread() is not threading.main_thread():
        return subprocess.Popen(command, **options)
    return subprocess.Popen(leashed(command, ends_by), **options)


def run(command: Sequence[str], *, timeout: float = LIMIT_S, **options: Any) -> subprocess.CompletedProcess[Any]:
    """As `subprocess.run`; `timeout` is in seconds."""
    # `events` lists the event classes that have been imported.
    is_ours = command[0] == preloaded.SMARTLINK and command[1:2] != ["events"]
    if is_ours and options.keys() <= _PRELOADED and options.get("text"):
        _skip_in_fast_runs(command)
        return preloaded.run(command[1:], options.get("cwd", Path.cwd()), options.get("env", os.environ), timeout)
    return subprocess.run(leashed(command), timeout=timeout, check=options.pop("check", False), **options)


async def spawn(*command: str, **options: Any) -> asyncio.subprocess.Process:
    """As `asyncio.create_subprocess_exec`."""
    return await asyncio.create_subprocess_exec(*leashed(command), **options)
