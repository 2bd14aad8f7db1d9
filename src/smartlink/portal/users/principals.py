"""A short-lived cache of the users behind tokens and sessions, so that not every request queries the database.

Revocations clear entries at once in this process, and through Redis in all others. Unless Redis confirms that a
process receives revocations, it trusts its entries for one second only; nothing revoked is accepted longer than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from smartlink.background import Background, ended
from smartlink.lost import closed_is_lost
from smartlink.portal.shared.errors import Forbidden
from smartlink.portal.shared.redis import PREFIX, SharedRedis, SharedRedisAway
from smartlink.portal.users.abilities import ALL, Ability, AbilityOrAll

__all__ = ["Principal", "Principals"]

KEPT_S = 5.0
UNHEARD_S = 1.0
"""How long entries are trusted while the process might be missing revocations from others."""
ASK_EVERY_S = 0.3
MAX_KEPT = 10_000
_CHANNEL = f"{PREFIX}revoked"


@dataclass(frozen=True, slots=True)
class Principal:
    """The calling user, with the id of their token or the hash of their session's cookie.

    `abilities` and `expires_at` are the token's; a session has every ability.
    """

    id: int
    name: str
    email: str
    is_admin: bool
    created_at: dt.datetime
    token_id: int | None = None
    session_id: str | None = None
    abilities: frozenset[str] = frozenset({ALL})
    expires_at: dt.datetime | None = None

    def can(self, *needed: AbilityOrAll) -> bool:
        """Return whether the caller's token has all of these abilities."""
        return ALL in self.abilities or self.abilities.issuperset(needed)

    def check(self, *needed: Ability) -> None:
        """Raise Forbidden, naming what is missing, unless the caller `can`."""
        if not self.can(*needed):
            missing = ", ".join(ability for ability in needed if ability not in self.abilities)
            raise Forbidden(f"This token lacks the ability {missing}.")


@dataclass(frozen=True, slots=True)
class _Kept:
    principal: Principal
    since: float
    until: float


class Principals:
    """Caches principals by the digest of their token or cookie. `start` subscribes to other processes' revocations."""

    def __init__(
        self,
        shared: SharedRedis | None = None,
        clock: Callable[[], float] = time.monotonic,
        background: Background | None = None,
    ) -> None:
        self._background = background or Background()
        self._shared = shared
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._hears_until = 0.0
        self._listening: asyncio.Task[None] | None = None
        self.revocations = 0
        """The number of revocations so far. Read it before querying the database, and pass it to `keep`."""

    def get(self, key: str) -> Principal | None:
        """Return the principal if it is cached and can still be trusted, else None."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        now = self._clock()
        if now >= kept.until:
            del self._kept[key]
            return None
        is_certain = now < kept.since + UNHEARD_S or now < self._hears_until
        return kept.principal if is_certain else None

    def keep(self, key: str, principal: Principal, expires_at: dt.datetime | None, revocations: int) -> None:
        """Cache what the database returned, unless something was revoked since `revocations` was read."""
        if revocations != self.revocations:
            return
        if len(self._kept) >= MAX_KEPT and key not in self._kept:
            del self._kept[next(iter(self._kept))]
        now, lasts_s = self._clock(), KEPT_S
        if expires_at is not None:
            lasts_s = min(lasts_s, (expires_at - dt.datetime.now(dt.UTC)).total_seconds())
        self._kept[key] = _Kept(principal, now, now + lasts_s)

    async def forget(self, user_id: int) -> None:
        """Drop a user's entries, here and in other processes. Call it after the commit that changed the user."""
        self._forget(user_id)
        if self._shared is not None:
            # Without Redis, other processes trust their entries for a second only.
            with contextlib.suppress(SharedRedisAway):
                await self._shared.ask(lambda redis: redis.publish(_CHANNEL, str(user_id)))

    def clear(self) -> None:
        """Drop all entries."""
        self.revocations += 1
        self._kept.clear()

    def start(self) -> None:
        """Subscribe to other processes' revocations."""
        if self._shared is not None and self._listening is None:
            self._listening = self._background.start("hearing revocations", self._listen(self._shared))

    async def aclose(self) -> None:
        """Unsubscribe."""
        await ended(self._listening)

    def _forget(self, user_id: int) -> None:
        self.revocations += 1
        self._kept = {key: kept for key, kept in self._kept.items() if kept.principal.id != user_id}

    async def _listen(self, shared: SharedRedis) -> None:
        while True:
            # SharedRedis logs that Redis is unavailable.
            with contextlib.suppress(RedisError, OSError, TimeoutError), closed_is_lost():
                async with shared.client.pubsub() as subscription:
                    await subscription.subscribe(_CHANNEL)
                    await self._receive(subscription)
            await asyncio.sleep(UNHEARD_S)

    async def _receive(self, subscription: Any) -> None:
        asked_at = 0.0
        while True:
            message = await subscription.get_message(timeout=ASK_EVERY_S)
            if message is None:
                if asked_at and self._clock() > asked_at + UNHEARD_S:
                    return
                if not asked_at:
                    asked_at = self._clock()
                    await subscription.ping()
            elif message["type"] == "subscribe":
                self.clear()  # revocations before this were missed
            elif message["type"] == "pong":
                # Everything published before the ping has been received.
                self._hears_until, asked_at = asked_at + UNHEARD_S, 0.0
            elif message["type"] == "message" and message["data"].isdigit():
                self._forget(int(message["data"]))
