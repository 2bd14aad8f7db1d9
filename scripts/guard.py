"""Run a command and leave no process of it behind: `guard.py COMMAND…`.

Two processes. The first waits, passes signals on, and exits as the command does. The second, its child in a session of
its own, is the parent of the command and, as subreaper (`prctl(2)`), of every orphan below it. It kills all of them
once the command has ended, and when the first process, or what started that one, is killed. Linux only; elsewhere the
command runs alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 10
"""How long the command may take to end by itself once it was asked to."""
LAST_S = 30
"""How long killed processes may take to be gone."""
PARENT_DIED = signal.SIGUSR1
PASSED_ON = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
AWAITED = {signal.SIGCHLD, PARENT_DIED, *PASSED_ON}


def main(command: list[str]) -> int:
    if not sys.platform.startswith("linux"):
        os.execvp(command[0], command)
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    first = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, PARENT_DIED)
        os._exit(_keep(command) if os.getppid() == first else 1)
    while (number := signal.sigwait(AWAITED)) != signal.SIGCHLD:
        os.kill(keeper, number)
    return os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])


def _keep(command: list[str]) -> int:
    """Run the command; returns its exit code, as a shell has it, when nothing below this process is left."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    us = os.getpid()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
        if os.getppid() == us:
            os.execvp(command[0], command)
        os._exit(1)
    code = _until_it_ends(child)
    _end_all()
    return code


def _until_it_ends(child: int) -> int:
    """Wait for the command, pass signals on, reap orphans."""
    limit: float | None = None
    while limit is None or time.monotonic() < limit:
        got = signal.sigtimedwait(AWAITED, 1)
        if got is None:
            continue
        if got.si_signo == PARENT_DIED:
            return 128 + signal.SIGKILL
        if got.si_signo in PASSED_ON:
            limit = limit or time.monotonic() + GRACE_S
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, got.si_signo)
        code = _reap().get(child)
        if code is not None:
            return code if code >= 0 else 128 - code
    return 128 + signal.SIGKILL


def _end_all() -> None:
    limit = time.monotonic() + LAST_S
    while (left := _below(os.getpid())) and time.monotonic() < limit:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        time.sleep(0.01)


def _reap() -> dict[int, int]:
    """Collect children that have ended; their exit codes."""
    codes = {}
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            codes[ended[0]] = os.waitstatus_to_exitcode(ended[1])
    return codes


def _below(root: int) -> list[int]:
    """Every process that descends from `root`."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent …; a name may hold anything.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, asked = [], [root]
    while asked:
        asked = [child for parent in asked for child in children.get(parent, [])]
        found += asked
    return found


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
