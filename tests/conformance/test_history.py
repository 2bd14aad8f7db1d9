"""The promises of every engine of the port `History`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kit.redis import RedisServer
from kit.redis_engines import RedisEngines, redis_engines
from kit.waiting import LIMIT_S, eventually, eventually_told
from smartlink.protocol import encoding
from smartlink.server.cluster.history.base import MAX_APP_BYTES, History, HistoryEntry
from smartlink.server.cluster.history.memory import MemoryHistory
from smartlink.server.cluster.history.redis import RedisHistory


class HistoryPromises:
    """Subclassed per engine."""

    def history(self, keep: int = 1, max_app_bytes: int = MAX_APP_BYTES) -> History:
        raise NotImplementedError

    async def test_latest_returns_the_last_appended_event(self) -> None:
        history = self.history()

        assert await history.latest("1", "cache-a") is None
        assert await history.append("1", "cache-a", b"one", 60) == 1
        assert await history.append("1", "cache-a", b"two", 60) == 2
        latest = await history.latest("1", "cache-a")
        assert latest is not None
        assert (latest.position, latest.frame) == (2, b"two")
        assert 55 < latest.ttl_s <= 60

    async def test_an_event_expires(self) -> None:
        history = self.history()
        await history.append("1", "cache-a", b"one", 0.05)
        async with asyncio.timeout(LIMIT_S):
            while await history.latest("1", "cache-a") is not None:
                await asyncio.sleep(0.01)

        assert await history.append("1", "cache-b", b"other", 60) == 1

    async def test_since_returns_missed_events_or_none_if_some_are_gone(self) -> None:
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

    async def test_an_app_over_its_budget_loses_only_its_own_oldest_events(self) -> None:
        history = self.history(max_app_bytes=100_000)
        await history.append("2", "cache-of-another", b"kept", 60)
        for number in range(200):
            await history.append("1", f"cache-{number}", b"%d" % number + b"x" * 1_000, 60)

        async def has_gone() -> bool:
            return await history.latest("1", "cache-0") is None

        await eventually_told(has_gone)
        assert await history.latest("1", "cache-199") is not None
        other = await history.latest("2", "cache-of-another")
        assert other is not None
        assert other.frame == b"kept"

    async def test_positions_continue_after_events_expired(self) -> None:
        history = self.history()
        for _ in range(3):
            await history.append("1", "cache-a", b"one", 0.05)

        async def has_gone() -> bool:
            return await history.latest("1", "cache-a") is None

        await eventually_told(has_gone)

        assert await history.append("1", "cache-a", b"two", 60) == 4


def frames(entries: object) -> list[tuple[int, bytes]]:
    assert isinstance(entries, list | tuple)
    assert all(isinstance(entry, HistoryEntry) for entry in entries)
    return [(entry.position, entry.frame) for entry in entries]


class TestMemoryHistory(HistoryPromises):
    def history(self, keep: int = 1, max_app_bytes: int = MAX_APP_BYTES) -> MemoryHistory:
        return MemoryHistory(keep, max_app_bytes=max_app_bytes)

    async def test_an_event_for_many_channels_is_stored_once(self) -> None:
        history = self.history()
        data = "x" * 10_000
        for number in range(100):
            channel = f"cache-{number}"
            await history.append("1", channel, encoding.event("e", channel, data), 60)

        assert history.used("1") < 10 * len(data)
        for number in (0, 99):
            kept = await history.latest("1", f"cache-{number}")
            assert kept is not None
            assert kept.frame == encoding.event("e", f"cache-{number}", data)

    async def test_expired_items_are_freed_without_being_read(self) -> None:
        history = self.history(keep=2)
        for number in range(100):
            await history.append("1", f"cache-{number % 60}", b'"cache-%d"' % (number % 60) + b"x" * 1_000, 0.05)
        assert history.used("1") > 0

        await eventually(lambda: history.used("1") == 0)
        assert not history._ends


class TestRedisHistory(HistoryPromises):
    @pytest.fixture(autouse=True)
    async def _engines(self, shared_redis: RedisServer) -> AsyncIterator[None]:
        async with redis_engines(shared_redis.url) as engines:
            self._made: RedisEngines = engines
            yield

    def history(self, keep: int = 1, max_app_bytes: int = MAX_APP_BYTES) -> History:
        return RedisHistory(self._made.commands, self._made.names, keep, max_app_bytes)
