"""What every engine of the port `Receipts` promises."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kit.redis import RedisServer, shared_redis
from kit.redis_engines import RedisEngines, redis_engines
from smartlink.server.receipts.base import KEPT_S, Pending, Receipts
from smartlink.server.receipts.memory import MemoryReceipts

__all__ = ["shared_redis"]


class ReceiptPromises:
    """Subclassed per engine."""

    def receipts(self) -> Receipts:
        raise NotImplementedError

    async def test_one_caller_claims_a_key_and_the_others_get_its_answer(self) -> None:
        receipts = self.receipts()

        assert await receipts.claim("1", "k") is None
        with pytest.raises(Pending):
            await receipts.claim("1", "k")
        await receipts.complete("1", "k", b"{}")
        assert await receipts.claim("1", "k") == b"{}"

    async def test_a_released_key_is_claimed_anew(self) -> None:
        receipts = self.receipts()
        await receipts.claim("1", "k")
        await receipts.release("1", "k")

        assert await receipts.claim("1", "k") is None

    async def test_apps_do_not_share_keys(self) -> None:
        receipts = self.receipts()
        await receipts.claim("1", "k")

        assert await receipts.claim("2", "k") is None


class TestMemoryReceipts(ReceiptPromises):
    def receipts(self) -> Receipts:
        return MemoryReceipts()

    async def test_a_key_is_forgotten_after_its_time(self) -> None:
        now = 100.0
        receipts = MemoryReceipts(now=lambda: now)
        await receipts.claim("1", "k")
        await receipts.complete("1", "k", b"{}")

        now += KEPT_S - 1
        assert await receipts.claim("1", "k") == b"{}"
        now += 2
        assert await receipts.claim("1", "k") is None


class TestRedisReceipts(ReceiptPromises):
    @pytest.fixture(autouse=True)
    async def _engines(self, shared_redis: RedisServer) -> AsyncIterator[None]:
        async with redis_engines(shared_redis.url) as engines:
            self._made: RedisEngines = engines
            yield

    def receipts(self) -> Receipts:
        return self._made.receipts
