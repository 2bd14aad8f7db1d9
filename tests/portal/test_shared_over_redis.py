"""What API processes share: rate limits, typing, sign-ins. In one process's memory, and over Redis."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from kit.portal import PASSWORD, Person, World
from kit.redis import RedisServer, redis_server
from kit.waiting import LIMIT_S, eventually, eventually_told
from smartlink.portal.chat.typists import MemoryTypists, RedisTypists, Typists
from smartlink.portal.shared import redis as module
from smartlink.portal.shared.errors import TooMany
from smartlink.portal.shared.limits import LIMITS, Counter, MemoryCounter, RateLimits, RedisCounter
from smartlink.portal.shared.redis import SharedRedis
from smartlink.portal.users import principals as kept
from smartlink.portal.users.principals import Principal, Principals


@pytest.fixture
async def shared(shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SharedRedis]:
    """Redis, given all the time it takes on a busy machine."""
    monkeypatch.setattr(module, "TIMEOUT_S", LIMIT_S)
    shared_redis.call("FLUSHALL")
    shared = SharedRedis(shared_redis.url)
    yield shared
    await shared.aclose()


class CounterPromises:
    async def test_allows_a_number_of_attempts_then_returns_the_wait(self, counter: Counter) -> None:
        taken = [await counter.take("a", 3, 60.0) for _ in range(3)]

        assert taken == [0, 0, 0]
        assert 50 < await counter.take("a", 3, 60.0) <= 60

    async def test_keys_are_counted_apart(self, counter: Counter) -> None:
        await counter.take("a", 1, 60.0)

        assert await counter.take("b", 1, 60.0) == 0
        assert await counter.take("a", 1, 60.0) > 0

    async def test_refused_attempts_do_not_count_and_the_window_slides(self, counter: Counter) -> None:
        async def is_taken() -> bool:
            return await counter.take("a", 2, 0.2) == 0

        assert [await is_taken(), await is_taken()] == [True, True]

        # Asked again and again meanwhile: if refusals counted, none would ever be taken.
        await eventually_told(is_taken)


class TestMemoryCounter(CounterPromises):
    @pytest.fixture
    def counter(self) -> Counter:
        return MemoryCounter()


class TestRedisCounter(CounterPromises):
    @pytest.fixture
    def counter(self, shared: SharedRedis) -> Counter:
        return RedisCounter(shared)

    async def test_two_processes_count_together(self, shared: SharedRedis, counter: Counter) -> None:
        other = RedisCounter(shared)

        taken = [await each.take("a", 3, 60.0) for each in (counter, other, counter, other)]

        assert [waits > 0 for waits in taken] == [False, False, False, True]


async def test_more_concurrent_calls_than_connections_all_reach_redis(
    shared: SharedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    counter = RedisCounter(shared)

    taken = await asyncio.gather(*(counter.take("a", 100, 60.0) for _ in range(200)))

    assert sorted(waits > 0 for waits in taken) == [False] * 100 + [True] * 100
    assert not caplog.messages


class TypistsPromises:
    async def test_only_the_first_typing_signal_is_new(self, typists: Typists) -> None:
        await typists.began(1, None)

        assert [await typists.ended(1, None), await typists.ended(1, None)] == [True, False]

    async def test_conversations_and_users_are_separate(self, typists: Typists) -> None:
        await typists.began(1, 2)

        assert not await typists.ended(1, None)
        assert not await typists.ended(2, 1)
        assert await typists.ended(1, 2)


class TestMemoryTypists(TypistsPromises):
    @pytest.fixture
    def typists(self) -> Typists:
        return MemoryTypists()

    async def test_typing_expires_after_six_seconds(self) -> None:
        now = 100.0
        typists = MemoryTypists(lambda: now)
        await typists.began(1, None)
        now += 6.1

        assert not await typists.ended(1, None)


class TestRedisTypists(TypistsPromises):
    @pytest.fixture
    def typists(self, shared: SharedRedis) -> Typists:
        return RedisTypists(shared)

    async def test_typing_expires_after_six_seconds(self, shared: SharedRedis, shared_redis: RedisServer) -> None:
        await RedisTypists(shared).began(1, None)

        [name] = await shared.client.keys("*")
        assert 0 < int(str(shared_redis.call("PTTL", name.decode()))) <= 6_000

    async def test_typing_is_shared_by_processes(self, shared: SharedRedis, typists: Typists) -> None:
        await typists.began(1, 2)

        assert await RedisTypists(shared).ended(1, 2)


async def test_a_reached_limit_raises_too_many() -> None:
    limits = RateLimits(MemoryCounter())
    for _ in range(LIMITS["login"][0]):
        await limits.take("login", "ana@example.com")

    with pytest.raises(TooMany):
        await limits.take("login", "ana@example.com")


async def test_without_redis_limits_are_counted_in_the_process(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server() as server:
        world = World(database_url, {"broadcast": {"redis_url": server.url, "driver": "null"}})
        ana = await world.person("Ana")
        first = await ana.post("/api/chat/messages", {"message": "1"})
        server.kill()

        with caplog.at_level(logging.INFO, "smartlink.portal.shared.redis"):
            others = [await ana.post("/api/chat/messages", {"message": str(n)}) for n in range(2, 23)]
            typing = await ana.post("/api/chat/typing", {"typing": True})
            ended = await ana.post("/api/logout")
            away = [record.message for record in caplog.records if record.name == "smartlink.portal.shared.redis"]
            server.start()
            ben = await world.person("Ben")

            async def is_back() -> bool:
                await ben.post("/api/chat/typing", {"typing": True})
                return "Redis is available again" in caplog.messages

            await eventually_told(is_back)

    assert first.status_code == 201
    assert [answer.status_code for answer in others] == [201] * 20 + [429]
    assert (typing.status_code, ended.status_code) == (200, 204)
    assert len(away) == 1
    assert "unavailable" in away[0]
    await world.aclose()


REVOCATIONS: dict[str, Callable[[Person, Person], Awaitable[object]]] = {
    "sign out": lambda ana, _: ana.post("/api/logout"),
    "sign out everywhere": lambda ana, _: ana.post("/api/logout/everywhere"),
    "revoke": lambda ana, _: _revoke(ana),
    "block": lambda ana, admin: admin.patch(f"/api/admin/users/{ana.id}", {"is_blocked": True}),
}


async def _revoke(ana: Person) -> None:
    for token in (await ana.get("/api/tokens")).json():
        await ana.delete(f"/api/tokens/{token['id']}")


@pytest.mark.parametrize("how", REVOCATIONS)
async def test_a_revocation_applies_at_once_here_and_soon_elsewhere(
    database_url: str, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(kept, "KEPT_S", 600)  # else time alone would have it refused
    options = {"broadcast": {"redis_url": shared_redis.url, "driver": "null"}}
    here, elsewhere = World(database_url, options), World(database_url, options)
    for world in (here, elsewhere):
        await world.portal.start()
    ana, admin = await here.person("Ana"), await here.person("Root", is_admin=True)
    stranger = elsewhere.client(authorization=ana.client.headers["authorization"])
    assert [(await each.get("/api/user")).status_code for each in (ana.client, stranger)] == [200, 200]

    await REVOCATIONS[how](ana, admin)

    assert (await ana.get("/api/user")).status_code == 401

    async def is_refused() -> bool:
        return (await stranger.get("/api/user")).status_code == 401

    await eventually_told(is_refused)
    for world in (here, elsewhere):
        await world.aclose()


async def test_a_new_password_ends_the_other_tokens_at_once(world: World, ana: Person) -> None:
    signed_in = (await ana.client.post("/api/login", json={"email": ana.email, "password": PASSWORD})).json()
    other = world.client(authorization=f"Bearer {signed_in['token']}")
    assert (await other.get("/api/user")).status_code == 200

    changed = await ana.put("/api/user/password", {"current_password": PASSWORD, "password": "another good one"})

    assert changed.status_code == 204
    assert (await other.get("/api/user")).status_code == 401
    assert (await ana.get("/api/user")).status_code == 200


async def test_a_page_that_signed_out_is_refused_at_once(world: World, ana: Person) -> None:
    page = world.client()
    await page.post("/api/session", json={"email": ana.email, "password": PASSWORD})
    assert (await page.get("/api/session")).status_code == 200
    cookie = page.cookies["smartlink_session"]

    await page.delete("/api/session", headers={"x-xsrf-token": page.cookies["XSRF-TOKEN"]})

    again = world.client(cookie=f"smartlink_session={cookie}")
    assert (await again.get("/api/session")).status_code == 401


async def test_a_new_name_and_new_rights_show_at_once(world: World, ana: Person) -> None:
    root = await world.person("Root", is_admin=True)
    assert (await ana.get("/api/user")).json()["name"] == "Ana"

    await ana.patch("/api/user", {"name": "Anna"})
    await root.patch(f"/api/admin/users/{ana.id}", {"is_admin": True})

    assert (await ana.get("/api/user")).json() | {"name": "Anna", "is_admin": True} == (
        await ana.get("/api/user")
    ).json()


ANA = Principal(1, "Ana", "ana@example.com", is_admin=False, created_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


async def test_without_redis_a_process_trusts_its_cache_for_a_second() -> None:
    now = 100.0
    principals = Principals(clock=lambda: now)
    principals.keep("key", ANA, None, principals.revocations)

    now += 0.9
    assert principals.get("key") == ANA
    now += 0.2
    assert principals.get("key") is None


async def test_principals_read_before_a_revocation_are_not_cached() -> None:
    principals = Principals()
    before = principals.revocations
    await principals.forget(ANA.id)

    principals.keep("key", ANA, None, before)

    assert principals.get("key") is None


async def test_an_expiring_principal_is_not_cached_longer() -> None:
    now = 100.0
    principals = Principals(clock=lambda: now)
    principals.keep("key", ANA, dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.5), principals.revocations)

    now += 0.6

    assert principals.get("key") is None


async def test_a_process_that_receives_revocations_trusts_its_cache_longer() -> None:
    with redis_server() as server:
        shared, ahead_s = SharedRedis(server.url), 0.0
        principals = Principals(shared, lambda: time.monotonic() + ahead_s)
        principals.start()
        await eventually(lambda: principals._hears_until)
        principals.keep("key", ANA, None, principals.revocations)

        ahead_s += 1.5
        await eventually(lambda: principals.get("key") == ANA)
        server.freeze()
        ahead_s += 1.5

        assert principals.get("key") is None
        server.thaw()
        await principals.aclose()
        await shared.aclose()
