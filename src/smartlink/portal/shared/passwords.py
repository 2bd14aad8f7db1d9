"""Passwords: hashed and checked by few at once, waited for by few more, and for nobody who has hung up."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher
from starlette.requests import ClientDisconnect, Request

from smartlink.portal.shared.errors import Busy
from smartlink.portal.shared.security import client_address

__all__ = ["MAX_HASHING", "MAX_WAITING", "MAX_WAITING_PER_ADDRESS", "Asker", "Passwords", "asker_of"]

MAX_HASHING = 4
"""At once: each takes 64 MiB and a core."""
MAX_WAITING = 32
MAX_WAITING_PER_ADDRESS = 8
"""So that one address leaves room for others."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Whom a password is hashed for; `gone` returns when they have hung up."""

    address: str
    gone: Callable[[], Awaitable[None]]


def asker_of(request: Request) -> Asker:
    """Who sent a request whose body has been read."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return Asker(client_address(request.scope, request.app.state.trusted_proxies), gone)


class Passwords:
    """Argon2id, in threads so that the loop goes on: four at once; at most 32 wait, 8 of them of one address.

    For an asker, both raise Busy when there is no room to wait, and ClientDisconnect once the asker is gone.
    """

    def __init__(self, hasher: Argon2Hasher | None = None) -> None:
        self._hash = PasswordHash((hasher or Argon2Hasher(),))
        self._room = asyncio.Semaphore(MAX_HASHING)
        self._waiting: Counter[str] = Counter()
        self._nobody: str | None = None

    async def hash(self, password: str, asker: Asker | None = None) -> str:
        """The text to store."""
        async with self._turn(asker):
            return await asyncio.to_thread(self._hash.hash, password)

    async def is_right(self, password: str, stored: str | None, asker: Asker | None = None) -> bool:
        """Whether `password` fits. `stored` is None for nobody: that takes as long, and is never right."""
        if stored is None:
            if self._nobody is None:
                self._nobody = await self.hash(secrets.token_hex(16), asker)
            await self._verify(password, self._nobody, asker)
            return False
        return await self._verify(password, stored, asker)

    async def _verify(self, password: str, stored: str, asker: Asker | None) -> bool:
        async with self._turn(asker):
            try:
                return await asyncio.to_thread(self._hash.verify, password, stored)
            except UnknownHashError:
                return False

    @asynccontextmanager
    async def _turn(self, asker: Asker | None) -> AsyncIterator[None]:
        if asker is None or not self._room.locked():
            await self._room.acquire()
        else:
            await self._wait(asker)
        try:
            yield
        finally:
            self._room.release()

    async def _wait(self, asker: Asker) -> None:
        if self._waiting.total() >= MAX_WAITING or self._waiting[asker.address] >= MAX_WAITING_PER_ADDRESS:
            raise Busy
        self._waiting[asker.address] += 1
        turn: asyncio.Task[Any] = asyncio.create_task(self._room.acquire())
        gone: asyncio.Future[None] = asyncio.ensure_future(asker.gone())
        try:
            await asyncio.wait({turn, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() or not turn.done():
                raise ClientDisconnect
        except BaseException:
            if turn.done():
                self._room.release()
            turn.cancel()
            raise
        finally:
            gone.cancel()
            self._waiting[asker.address] -= 1
            if not self._waiting[asker.address]:
                del self._waiting[asker.address]
