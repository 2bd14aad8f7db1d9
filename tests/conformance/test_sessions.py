"""What every engine of the port `SessionStore` promises."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kit.redis import RedisServer
from kit.redis_engines import RedisEngines, redis_engines
from kit.waiting import eventually_told
from kit.worker_hub import workers
from smartlink.server.cluster.sessions.base import MAX_APP_BYTES, SessionStore
from smartlink.server.cluster.sessions.memory import MemorySessions
from smartlink.server.cluster.sessions.redis import RedisSessions
from smartlink.server.workers.engines import WorkerSessions
from smartlink.server.workers.single import SingleSessions


class SessionStorePromises:
    """Subclassed per engine."""

    def sessions(self, max_app_bytes: int = MAX_APP_BYTES) -> SessionStore:
        raise NotImplementedError

    async def test_a_new_owner_gets_what_was_saved_last(self) -> None:
        sessions = self.sessions()

        assert await sessions.take("1", "s", "a") is None
        assert await sessions.save("1", "s", "a", b"one", 60)
        assert await sessions.save("1", "s", "a", b"two", 60)
        assert await sessions.take("1", "s", "b") == b"two"
        assert await sessions.take("1", "s", "c") == b"two"

    async def test_a_former_owner_saves_nothing_more(self) -> None:
        sessions = self.sessions()
        await sessions.take("1", "s", "a")
        await sessions.save("1", "s", "a", b"one", 60)
        await sessions.take("1", "s", "b")

        assert not await sessions.save("1", "s", "a", b"late", 60)
        assert await sessions.save("1", "s", "b", b"two", 60)
        assert await sessions.take("1", "s", "c") == b"two"

    async def test_what_is_lost_is_saved_again_by_its_owner(self) -> None:
        sessions = self.sessions()

        assert await sessions.save("1", "s", "a", b"one", 60)
        assert await sessions.take("1", "s", "b") == b"one"

    async def test_apps_do_not_share_sessions(self) -> None:
        sessions = self.sessions()
        await sessions.save("1", "s", "a", b"one", 60)

        assert await sessions.take("2", "s", "b") is None
        assert await sessions.save("1", "s", "a", b"two", 60)

    async def test_each_mark_of_a_subject_is_another(self) -> None:
        sessions = self.sessions()
        assert list(await sessions.marks("1", ["a", "b"])) == [0, 0]
        await sessions.revoke("1", "a", 60)
        first, none = await sessions.marks("1", ["a", "b"])
        await sessions.revoke("1", "a", 60)
        second, _ = await sessions.marks("1", ["a", "b"])

        assert first != second
        assert 0 not in (first, second)
        assert none == 0
        assert list(await sessions.marks("2", ["a"])) == [0]

    async def test_an_app_over_its_bytes_loses_its_oldest_sessions_and_no_other_app_any(self) -> None:
        sessions = self.sessions(max_app_bytes=100_000)
        await sessions.save("2", "s", "a", b"of another", 60)
        for number in range(500):
            await sessions.save("1", f"s{number}", "a", b"x" * 100, 60)

        async def is_forgotten() -> bool:
            return await sessions.take("1", "s0", "b") is None

        await eventually_told(is_forgotten)
        assert await sessions.take("1", "s499", "b") is not None
        assert await sessions.take("2", "s", "b") == b"of another"


class TestMemorySessions(SessionStorePromises):
    def sessions(self, max_app_bytes: int = MAX_APP_BYTES) -> SessionStore:
        return MemorySessions(max_app_bytes=max_app_bytes)

    async def test_a_session_is_gone_after_its_time(self) -> None:
        now = [0.0]
        sessions = MemorySessions(now=lambda: now[0])
        await sessions.save("1", "s", "a", b"one", 60)
        now[0] = 61.0

        assert await sessions.take("1", "s", "b") is None


class TestRedisSessions(SessionStorePromises):
    @pytest.fixture(autouse=True)
    async def _engines(self, shared_redis: RedisServer) -> AsyncIterator[None]:
        async with redis_engines(shared_redis.url) as engines:
            self._made: RedisEngines = engines
            yield

    def sessions(self, max_app_bytes: int = MAX_APP_BYTES) -> SessionStore:
        return RedisSessions(self._made.commands, self._made.names, max_app_bytes)

    async def test_a_session_has_a_time_to_live(self) -> None:
        await self.sessions().save("1", "s", "a", b"one", 60)
        key = self._made.names.session("1", "s")

        assert 0 < await self._made.commands.send(key, "TTL", key) <= 60


async def test_a_worker_takes_an_open_session_of_the_process_that_it_succeeds() -> None:
    async with workers() as machine:
        store = machine.hub.sessions
        assert isinstance(store, MemorySessions)
        single, worker = SingleSessions(machine.hub, store), WorkerSessions(await machine.link())
        open_sessions = {"s": b"open"}
        assert single.ask_for_open(lambda app_id, name: open_sessions.pop(name, None) if app_id == "1" else None)

        assert await worker.take("2", "s", "b") is None
        assert await worker.take("1", "s", "b") == b"open"
        assert not await single.save("1", "s", "a", b"late", 60)
        assert await worker.save("1", "s", "b", b"two", 60)
        assert await single.take("1", "s", "c") == b"two"


class TestWorkerSessions(SessionStorePromises):
    @pytest.fixture(autouse=True)
    async def _machine(self) -> AsyncIterator[None]:
        async with workers(max_app_bytes=100_000) as machine:
            self._link = await machine.link()
            yield

    def sessions(self, max_app_bytes: int = MAX_APP_BYTES) -> SessionStore:
        assert max_app_bytes >= 100_000
        return WorkerSessions(self._link)
