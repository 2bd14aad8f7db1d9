"""Strangers at the sign-in form are limited in attempts and hashing, and do not affect others."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from starlette.requests import ClientDisconnect

from kit.listening import listening
from kit.portal import PASSWORD, Person, World
from kit.waiting import eventually
from smartlink.portal.listener import Bounds
from smartlink.portal.shared.errors import Busy
from smartlink.portal.shared.passwords import MAX_HASHING, MAX_WAITING, MAX_WAITING_PER_ADDRESS, Asker, Passwords

PROXY = {"trusted_proxies": "127.0.0.1"}
STRANGER, AT_HOME = {"x-forwarded-for": "203.0.113.7"}, {"x-forwarded-for": "198.51.100.2"}


@pytest.fixture
async def world(sqlite_template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    path = tmp_path_factory.mktemp("db") / "portal.db"
    shutil.copyfile(sqlite_template, path)
    world = World(f"sqlite+aiosqlite:///{path}", PROXY)
    limits = world.portal.limits
    # The window is made long: a slow machine must not see it move.
    limits.allowed = {name: (at_most, 3600.0) for name, (at_most, _) in limits.allowed.items()}
    yield world
    await world.aclose()


async def status(world: World, email: str, password: str, sent_by: dict[str, str], path: str = "/api/login") -> int:
    client = world.client(**sent_by)
    return (await client.post(path, json={"email": email, "password": password})).status_code


@pytest.mark.parametrize("path", ["/api/login", "/api/session"])
async def test_a_strangers_guesses_do_not_lock_the_user_out(world: World, ana: Person, path: str) -> None:
    guesses = [await status(world, ana.email, f"guess {n}", STRANGER, path) for n in range(11)]

    assert guesses == [422] * 10 + [429]
    assert await status(world, ana.email, PASSWORD, AT_HOME, path) == 200
    body = {"current_password": PASSWORD, "password": "a new battery staple"}
    assert (await ana.put("/api/user/password", body)).status_code == 204
    change = {"email": "new@example.com", "current_password": "a new battery staple"}
    assert (await ana.patch("/api/user", change)).status_code == 200


async def test_sign_ins_per_address_are_limited_over_all_accounts(world: World, ana: Person) -> None:
    checked: list[str] = []
    verify = world.portal.passwords._verify

    async def counted(password: str, stored: str, asker: Asker | None) -> bool:
        checked.append(password)
        return await verify(password, stored, asker)

    world.portal.passwords._verify = counted  # type: ignore[method-assign] # counts what is hashed

    tried = [await status(world, f"nobody{n}@example.com", "wrong password", STRANGER) for n in range(61)]

    assert tried == [422] * 60 + [429]
    assert len(checked) == 60
    assert await status(world, ana.email, PASSWORD, AT_HOME) == 200


class HeldHasher:
    """Stands in for Argon2: takes as long as the test likes."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.begun = 0

    def hash(self, _password: str) -> str:
        self.begun += 1
        self.may_end.wait(20)
        return "hashed"

    def verify(self, password: str, _stored: str) -> bool:
        self.hash(password)
        return True


@pytest.fixture
def held() -> Iterator[HeldHasher]:
    held = HeldHasher()
    yield held
    held.may_end.set()


@pytest.fixture
def passwords(held: HeldHasher) -> Passwords:
    passwords = Passwords()
    passwords._hash = held  # type: ignore[assignment]
    return passwords


def asker(address: str) -> tuple[Asker, asyncio.Event]:
    hung_up = asyncio.Event()

    async def gone() -> None:
        await hung_up.wait()

    return Asker(address, gone), hung_up


async def _tasks(passwords: Passwords, askers: list[Asker]) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(passwords.is_right("x", "stored", each)) for each in askers]
    await asyncio.sleep(0)
    return tasks


async def test_the_hashing_queue_is_limited_in_total_and_per_address(passwords: Passwords, held: HeldHasher) -> None:
    hashing = await _tasks(passwords, [asker("192.0.2.1")[0] for _ in range(MAX_HASHING)])
    waiting = await _tasks(passwords, [asker("192.0.2.1")[0] for _ in range(MAX_WAITING_PER_ADDRESS)])

    with pytest.raises(Busy) as refused:
        await passwords.is_right("x", "stored", asker("192.0.2.1")[0])
    others = MAX_WAITING - MAX_WAITING_PER_ADDRESS
    waiting += await _tasks(passwords, [asker(f"192.0.2.{n + 2}")[0] for n in range(others)])
    with pytest.raises(Busy):
        await passwords.is_right("x", "stored", asker("203.0.113.9")[0])
    held.may_end.set()

    assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "1"})
    assert all(await asyncio.gather(*hashing, *waiting))
    assert await passwords.is_right("x", "stored", asker("203.0.113.9")[0])


async def test_a_disconnected_client_leaves_the_hashing_queue(passwords: Passwords, held: HeldHasher) -> None:
    await _tasks(passwords, [asker("192.0.2.1")[0] for _ in range(MAX_HASHING)])
    abandoned = [asker(f"192.0.2.{n + 1}") for n in range(MAX_WAITING)]
    left = await _tasks(passwords, [each for each, _ in abandoned])
    for _, hung_up in abandoned:
        hung_up.set()

    for task in left:
        with pytest.raises(ClientDisconnect):
            await task
    honest = await _tasks(passwords, [asker("203.0.113.9")[0]])
    held.may_end.set()

    assert await honest[0]
    await eventually(lambda: held.begun == MAX_HASHING + 1)


async def test_a_cancelled_waiter_takes_no_slot(passwords: Passwords, held: HeldHasher) -> None:
    await _tasks(passwords, [asker("192.0.2.1")[0] for _ in range(MAX_HASHING)])
    (waiting,) = await _tasks(passwords, [asker("192.0.2.2")[0]])
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    held.may_end.set()

    assert all([await passwords.is_right("x", "stored", asker("192.0.2.3")[0]) for _ in range(2 * MAX_HASHING)])


async def test_abandoned_sign_ins_delay_no_others(
    world: World, ana: Person, held: HeldHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over real connections: the server says that they are gone, and their places are free."""
    passwords = world.portal.passwords
    real = passwords._hash
    monkeypatch.setattr(passwords, "_hash", held)
    body = b'{"email": "nobody@example.com", "password": "wrong password"}'
    head = f"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    async with listening(world.portal.app, Bounds()) as (port, _):
        writers = []
        for number in range(150):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{head}X-Forwarded-For: 203.0.113.{number}\r\n\r\n".encode() + body)
            writers.append(writer)
        await eventually(lambda: passwords._waiting.total() == MAX_WAITING)

        for writer in writers:
            writer.close()
        await eventually(lambda: passwords._waiting.total() == 0)

        monkeypatch.setattr(passwords, "_hash", real)
        held.may_end.set()
        async with httpx2.AsyncClient(verify=False, timeout=20) as client:
            credentials = {"email": ana.email, "password": PASSWORD}
            answer = await client.post(f"http://127.0.0.1:{port}/api/login", json=credentials)

    assert answer.status_code == 200
    assert held.begun <= MAX_HASHING
