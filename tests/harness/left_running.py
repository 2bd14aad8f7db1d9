"""A run to be killed: it starts what tests start, and goes on until then."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from kit import processes
from kit.chromium import chromium
from kit.redis import RedisServer
from kit.reverb import reverb

STANDS = Path(os.environ.get("SMARTLINK_TEST_STANDS", ""))


def stand() -> None:
    """Say that all there is to kill has been started."""
    STANDS.touch()


@pytest.mark.usefixtures("postgres_url")
async def test_everything_until_killed(tmp_path: Path, shared_redis: RedisServer) -> None:
    with reverb(tmp_path, "--workers", "2"):
        async with chromium() as browser:
            await browser.new_page()
            stand()
            await asyncio.Event().wait()


async def test_a_daemon_until_killed(shared_redis: RedisServer) -> None:
    processes.run(["sh", "-c", "setsid sleep 600 &"], check=True)
    stand()
    await asyncio.Event().wait()
