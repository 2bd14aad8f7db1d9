"""Hashes and verifies passwords, a few at once, with a short queue that drops callers who disconnect."""

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
"""Concurrent hashes: each takes 64 MiB and a core."""
MAX_WAITING = 32
MAX_WAITING_PER_ADDRESS = 8
"""Keeps one address from filling the queue."""


@dataclass(frozen=True, slots=True)
class Asker:
    """The client a password is hashed for; `gone` returns when they have disconnected."""

    address: str
    gone: Callable[[], Awaitable[None]]


def asker_of(request: Request) -> Asker:
    """Return the client of a request whose body has been read."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return Asker(client_address(request.scope, request.app.state.trusted_proxies), gone)


class Passwords:
    """Argon2id in threads: 4 hashes at once, up to 32 callers waiting, up to 8 of them from one address.

    With an asker, both methods raise Busy when the queue is full, and ClientDisconnect once the asker is gone.
    """

    def __init__(self, hasher: Argon2Hasher | None = None) -> None:
        self._hash = PasswordHash((hasher or Argon2Hasher(),))
        self._room = asyncio.Semaphore(MAX_HASHING)
        self._waiting: Counter[str] = Counter()
        self._nobody: str | None = None

    async def hash(self, password: str, asker: Asker | None = None) -> str:
        """Return the hash to store."""
        async with self._turn(asker):
            return await asyncio.to_thread(self._hash.hash, password)

    async def is_right(self, password: str, stored: str | None, asker: Asker | None = None) -> bool:
        """Return whether `password` matches. Without an account (`stored` None) it takes as long and is False."""
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
