"""What every engine of the port `History` promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kit.redis import RedisServer, shared_redis
from kit.redis_engines import RedisEngines, redis_engines
from smartlink.server.history.base import Entry, History
from smartlink.server.history.memory import MemoryHistory
from smartlink.server.history.redis import RedisHistory

__all__ = ["shared_redis"]


class HistoryPromises:
    """Subclassed per engine."""

    def history(self, keep: int = 1) -> History:
        raise NotImplementedError

    async def test_the_latest_is_the_last_that_was_appended(self) -> None:
        history = self.history()

        assert await history.latest("1", "cache-a") is None
        assert await history.append("1", "cache-a", b"one", 60) == 1
        assert await history.append("1", "cache-a", b"two", 60) == 2
        latest = await history.latest("1", "cache-a")
        assert latest is not None
        assert (latest.position, latest.frame) == (2, b"two")
        assert 55 < latest.ttl_s <= 60

    async def test_an_event_is_gone_once_its_time_is_over(self) -> None:
        history = self.history()
        await history.append("1", "cache-a", b"one", 0.05)
        async with asyncio.timeout(5):
            while await history.latest("1", "cache-a") is not None:
                await asyncio.sleep(0.01)

        assert await history.append("1", "cache-b", b"other", 60) == 1

    async def test_a_gap_is_closed_or_said_to_be_too_old(self) -> None:
        history = self.history(keep=3)
        for number in range(1, 6):
            await history.append("1", "cache-a", b"%d" % number, 60)

        assert frames(await history.since("1", "cache-a", 2)) == [(3, b"3"), (4, b"4"), (5, b"5")]
        assert frames(await history.since("1", "cache-a", 5)) == []
        assert await history.since("1", "cache-a", 1) is None
        assert await history.since("1", "nowhere", 1) is None

    async def test_apps_do_not_see_each_other(self) -> None:
        history = self.history()
        await history.append("1", "cache-a", b"one", 60)

        assert await history.latest("2", "cache-a") is None
        assert await history.append("2", "cache-a", b"other", 60) == 1


def frames(entries: object) -> list[tuple[int, bytes]]:
    assert isinstance(entries, list | tuple)
    assert all(isinstance(entry, Entry) for entry in entries)
    return [(entry.position, entry.frame) for entry in entries]


class TestMemoryHistory(HistoryPromises):
    def history(self, keep: int = 1) -> History:
        return MemoryHistory(keep)


class TestRedisHistory(HistoryPromises):
    @pytest.fixture(autouse=True)
    async def _engines(self, shared_redis: RedisServer) -> AsyncIterator[None]:
        async with redis_engines(shared_redis.url) as engines:
            self._made: RedisEngines = engines
            yield

    def history(self, keep: int = 1) -> History:
        return RedisHistory(self._made.commands, self._made.names, keep)
