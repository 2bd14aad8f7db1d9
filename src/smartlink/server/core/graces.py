"""Members whose connection was lost, until they come back or their time is over: meanwhile nobody is told anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from smartlink.protocol.session import PresenceMember
from smartlink.server.apps.base import App
from smartlink.server.core.hub import Connection
from smartlink.server.runtime.eager import EagerTasks

__all__ = ["Graces"]

_Key = tuple[str, str, str]
"""App id, name of the session, channel."""
Depart = Callable[[App, str, str, PresenceMember], Awaitable[None]]
"""Takes an app, a channel, a socket id and its member."""


class Graces:
    """Delays the leaves of sessions that may come back. A node that stops waits for them, at most `limit_s`."""

    def __init__(self, depart: Depart, tasks: EagerTasks, limit_s: float = 5.0) -> None:
        self._depart = depart
        self._tasks = tasks
        self._limit_s = limit_s
        self._held: dict[_Key, tuple[asyncio.TimerHandle, App, str, PresenceMember]] = {}
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def __len__(self) -> int:
        return len(self._held)

    async def hold(self, key: _Key, app: App, socket_id: str, member: PresenceMember, wait_s: int) -> None:
        """Let a lost connection's member leave after `wait_s` seconds."""
        await self._release(key)
        timer = asyncio.get_running_loop().call_later(wait_s, self._over, key)
        self._held[key] = (timer, app, socket_id, member)
        self._is_empty.clear()

    async def came_back(self, connection: Connection, channel: str) -> None:
        """Let the entry of a session's lost connection go, if there is one: it has another now."""
        session = connection.client_session
        if session is not None and self._held:
            await self._release((connection.app.id, session.name, channel))

    async def _release(self, key: _Key) -> None:
        if (held := self._held.pop(key, None)) is not None:
            timer, app, socket_id, member = held
            timer.cancel()
            if not self._held:
                self._is_empty.set()
            await self._depart(app, key[2], socket_id, member)

    async def finish(self) -> None:
        """Wait until all have come back elsewhere, or their time is over."""
        try:
            await asyncio.wait_for(self._is_empty.wait(), self._limit_s)
        except TimeoutError:
            for timer, *_ in self._held.values():
                timer.cancel()
            self._held.clear()

    def _over(self, key: _Key) -> None:
        self._tasks.run(self._release(key))
