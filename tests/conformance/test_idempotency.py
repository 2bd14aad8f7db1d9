"""The promises of every engine of the port `IdempotencyStore`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kit.redis import RedisServer
from kit.redis_engines import RedisEngines, redis_engines
from kit.waiting import eventually, eventually_told
from smartlink.server.cluster.idempotency.base import KEPT_S, MAX_APP_BYTES, CallUnderWay, IdempotencyStore
from smartlink.server.cluster.idempotency.memory import MemoryIdempotency
from smartlink.server.cluster.idempotency.redis import RedisIdempotency


class IdempotencyPromises:
    """Subclassed per engine."""

    def idempotency(self, max_app_bytes: int = MAX_APP_BYTES) -> IdempotencyStore:
        raise NotImplementedError

    async def test_one_caller_claims_a_key_and_the_others_get_its_answer(self) -> None:
        idempotency = self.idempotency()

        assert await idempotency.claim("1", "k") is None
        with pytest.raises(CallUnderWay):
            await idempotency.claim("1", "k")
        await idempotency.complete("1", "k", b"{}")
        assert await idempotency.claim("1", "k") == b"{}"

    async def test_a_released_key_can_be_claimed_again(self) -> None:
        idempotency = self.idempotency()
        await idempotency.claim("1", "k")
        await idempotency.release("1", "k")

        assert await idempotency.claim("1", "k") is None

    async def test_apps_do_not_share_keys(self) -> None:
        idempotency = self.idempotency()
        await idempotency.claim("1", "k")

        assert await idempotency.claim("2", "k") is None

    async def test_an_app_over_its_budget_loses_only_its_own_oldest_keys(self) -> None:
        idempotency = self.idempotency(max_app_bytes=100_000)
        await carry_out(idempotency, "2", "of another")
        for number in range(500):
            await carry_out(idempotency, "1", f"k{number}")

        async def is_forgotten() -> bool:
            if await idempotency.claim("1", "k0") is not None:
                return False
            await idempotency.release("1", "k0")
            return True

        await eventually_told(is_forgotten)
        assert await idempotency.claim("1", "k499") == b"{}"
        assert await idempotency.claim("2", "of another") == b"{}"


async def carry_out(idempotency: IdempotencyStore, app_id: str, key: str) -> None:
    assert await idempotency.claim(app_id, key) is None
    await idempotency.complete(app_id, key, b"{}")


class TestMemoryIdempotency(IdempotencyPromises):
    def idempotency(self, max_app_bytes: int = MAX_APP_BYTES) -> IdempotencyStore:
        return MemoryIdempotency(max_app_bytes=max_app_bytes)

    async def test_expired_items_are_freed_without_being_read(self) -> None:
        now = 100.0
        idempotency = MemoryIdempotency(now=lambda: now)
        for number in range(10):
            await carry_out(idempotency, "1", f"k{number}")
        now += KEPT_S + 1

        await eventually(lambda: idempotency.used("1") == 0)

    async def test_a_key_expires(self) -> None:
        now = 100.0
        idempotency = MemoryIdempotency(now=lambda: now)
        await idempotency.claim("1", "k")
        await idempotency.complete("1", "k", b"{}")

        now += KEPT_S - 1
        assert await idempotency.claim("1", "k") == b"{}"
        now += 2
        assert await idempotency.claim("1", "k") is None


class TestRedisIdempotency(IdempotencyPromises):
    @pytest.fixture(autouse=True)
    async def _engines(self, shared_redis: RedisServer) -> AsyncIterator[None]:
        async with redis_engines(shared_redis.url) as engines:
            self._made: RedisEngines = engines
            yield

    def idempotency(self, max_app_bytes: int = MAX_APP_BYTES) -> IdempotencyStore:
        return RedisIdempotency(self._made.commands, self._made.names, max_app_bytes)
