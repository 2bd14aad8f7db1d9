"""Processes of browsers: started with a log of their own, ended for sure."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from kit import processes
from kit.waiting import LIMIT_S, eventually


async def started(
    command: list[str], says: re.Pattern[str] | None, folder: Path, environment: dict[str, str] | None = None
) -> tuple[asyncio.subprocess.Process, re.Match[str]]:
    """Start it, with its log in `folder`, and wait until its output matches `says`; returns the match, an empty one without `says`."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as output:
        process = await processes.spawn(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            env=environment or dict(os.environ),
        )  # fmt: skip
    wanted = says or re.compile("")

    def told() -> re.Match[str] | None:
        assert process.returncode is None, f"{command[0]} ended:\n{log.read_text(errors='replace')}"
        return wanted.search(log.read_text(errors="replace"))

    try:
        await eventually(told, what=f"{command[0]} started; see its log")
    except BaseException:
        await ended(process)
        raise
    match = told()
    assert match is not None
    return process, match


async def ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(LIMIT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
