"""Virtual screens."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from browsers.process import ended, started


class Screen:
    """A virtual screen that windows are drawn on."""

    def __init__(self, process: asyncio.subprocess.Process, display: str) -> None:
        self._process = process
        self.display = display

    @classmethod
    async def start(cls, binary: str, folder: Path) -> Screen:
        # It picks a free number and tells it on the descriptor.
        command = [binary, "-displayfd", "1", "-screen", "0", "1400x1000x24", "-nolisten", "tcp"]
        process, found = await started(command, re.compile(r"^(\d+)$", re.MULTILINE), folder)
        return cls(process, f":{found[1]}")

    async def close(self) -> None:
        await ended(self._process)
