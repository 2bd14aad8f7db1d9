"""Runs `smartlink` in processes forked from one that has imported it: nearly all of a command's time is its imports.

Imports little itself, because each of those processes imports this module.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kit.parents import end_with_parent

__all__ = ["SMARTLINK", "run"]

SMARTLINK = str(Path(sys.executable).with_name("smartlink"))

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["smartlink.cli.main", "smartlink.portal.main", "smartlink.portal.migrations", "smartlink.server.run.bootstrap"]
)


def run(words: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run `smartlink WORDS…` and capture what it prints. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        out.touch()
        err.touch()
        process = _forks.Process(target=_command, args=(list(words), str(cwd), dict(env), str(out), str(err)))
        process.start()
        process.join(timeout)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([SMARTLINK, *words], timeout, out.read_bytes(), err.read_bytes())
        process.close()
        return subprocess.CompletedProcess([SMARTLINK, *words], code, out.read_text(), err.read_text())


def _command(words: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    end_with_parent()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for descriptor, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = [SMARTLINK, *words]
    from smartlink.cli.entry import main

    main()
