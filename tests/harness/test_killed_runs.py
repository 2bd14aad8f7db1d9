"""A killed test run leaves no process behind: no server, database, browser or worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit import processes
from kit.waiting import eventually

ROOT = Path(__file__).parents[2]
GUARD = [sys.executable, str(ROOT / "scripts" / "guard.py")]
PYTEST = [
    sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider", "--timeout", "0",
    str(Path(__file__).with_name("left_running.py")), "-k",
]  # fmt: skip
EVERYTHING = {"chrom", "node", "postgres", "python", "redis-server", "smartlink"}
"""How the names of the processes of a whole run begin."""
DAEMON = {"redis-server", "sleep"}
"""How those of a run begin that left an orphan behind."""


def kill_all_in_its_group(run: subprocess.Popen[bytes]) -> None:
    os.killpg(run.pid, signal.SIGKILL)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAKE", "SMARTLINK_"))}
    return kept | {"SMARTLINK_TEST_STANDS": str(tmp_path / "stands"), "PYTEST_DEBUG_TEMPROOT": str(tmp_path)}


def below(root: int) -> Iterator[int]:
    """Every process that descends from `root`; none when it is gone."""
    for task in Path(f"/proc/{root}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # the thread has ended since it was listed
            continue
        for child in map(int, children):
            yield child
            yield from below(child)


def name_of(pid: int) -> str | None:
    """None: it is gone, or a zombie that nobody collects."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return None if rest.split()[0] in "ZX" else name


def made(folder: Path, command: list[str]) -> list[str]:
    """The run as `make test` has it: make, the guard, pytest, its workers."""
    makefile = folder / "Makefile"
    makefile.write_text(f"SHELL := /bin/bash\ntest:\n\t@{' '.join([*GUARD, *command])}\n")
    return ["make", "-f", str(makefile), "test"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="parent-death signals are Linux's")
@pytest.mark.browser
@pytest.mark.parametrize(
    ("is_made", "kill", "names"),
    [
        pytest.param(True, subprocess.Popen.terminate, DAEMON, id="make told to end"),
        pytest.param(True, subprocess.Popen.kill, DAEMON, id="make killed"),
        pytest.param(True, kill_all_in_its_group, EVERYTHING, id="make and its group killed"),
        pytest.param(False, subprocess.Popen.kill, EVERYTHING, id="pytest killed"),
    ],
)
async def test_a_killed_run_leaves_no_process_behind(
    tmp_path: Path,
    environment: dict[str, str],
    is_made: bool,
    kill: Callable[[subprocess.Popen[bytes]], None],
    names: set[str],
) -> None:
    command = [*PYTEST, "everything" if names is EVERYTHING else "daemon"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        run = processes.popen(
            made(tmp_path, command) if is_made else command, cwd=ROOT, env=environment, stdout=output, stderr=output,
            start_new_session=True, ends_by=signal.SIGTERM,
        )  # fmt: skip
    started: set[int] = set()
    found: set[str] = set()
    try:

        def stands() -> bool:
            """Everything was started, and each process has become the program that it is to be."""
            assert run.poll() is None, log.read_text()
            if not (tmp_path / "stands").exists():
                return False
            started.update(below(run.pid))
            found.update(name for pid in started if (name := name_of(pid)))
            return all(any(name.startswith(wanted) for name in found) for wanted in names)

        await eventually(stands, what=f"a run that stands, see {log}")
    finally:
        kill(run)
        run.wait()

    await eventually(lambda: not any(map(name_of, started)), what="all of them gone")
