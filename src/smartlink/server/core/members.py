"""Members of presence channels who were told to have left although they are here.

A user whose last connection leaves one node at the moment their next one comes to another is told to have left by the
one and to have come by the other. Everybody hears both in one order, but that may not be the order it happened in, and
by the time it is heard the user may be somewhere else again: the roster alone knows.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from smartlink.protocol import encoding
from smartlink.server.cluster.brokers.base import Publication, left_out
from smartlink.server.cluster.presence.base import PresenceStore
from smartlink.server.core.corrections import Corrections
from smartlink.server.core.hub import Hub
from smartlink.server.runtime.eager import EagerTasks

__all__ = ["LOOK_S", "Members"]

LOOK_S = 0.5
"""How long at most after a leave was heard the roster is asked whether it was the last word; half of it at least."""

_Key = tuple[str, str]


class Members:
    """Tells those on this node again of members who are there, and whose leave they heard last.

    `deliver` tells those on this node alone; `is_connected` says whether the roster knows of other nodes now.
    """

    def __init__(
        self,
        hub: Hub,
        presence: PresenceStore,
        deliver: Callable[[Publication], None],
        is_connected: Callable[[], bool],
        tasks: EagerTasks,
        corrections: Corrections,
    ) -> None:
        self._hub = hub
        self._roster = presence
        self._deliver = deliver
        self._is_whole = is_connected
        self._tasks = tasks
        self._corrections = corrections
        self._left: dict[_Key, dict[str, int]] = {}
        """By channel, the users whose leave was heard last, and its number, until the roster is asked."""
        self._asked: dict[_Key, list[dict[str, int]]] = {}
        """The same, while it is being asked: once for each question under way."""
        self._looks: dict[_Key, asyncio.TimerHandle] = {}

    def heard(self, app_id: str, channel: str, user_id: str, version: int, *, has_come: bool) -> None:
        """This was told on the channel, by whichever node."""
        key = (app_id, channel)
        # What is heard now is younger than any answer under way.
        for users in self._asked.get(key, ()):
            users.pop(user_id, None)
        if has_come:
            self._left.get(key, {}).pop(user_id, None)
        elif self._hub.channel(app_id, channel) is not None:
            self._left.setdefault(key, {})[user_id] = version
            if key not in self._looks:
                look_s = LOOK_S * random.uniform(0.5, 1.0)  # noqa: S311 — no secret
                self._looks[key] = asyncio.get_running_loop().call_later(look_s, self._look, key)

    def stop(self) -> None:
        for look in self._looks.values():
            look.cancel()
        self._looks.clear()
        self._left.clear()

    def _look(self, key: _Key) -> None:
        del self._looks[key]
        users = self._left.pop(key)
        if users and self._is_whole():
            self._asked.setdefault(key, []).append(users)
            self._tasks.run(self._put_right(key, users))

    async def _put_right(self, key: _Key, users: dict[str, int]) -> None:
        app_id, channel = key
        try:
            state = await self._roster.state(app_id, channel)
        finally:
            under_way = [each for each in self._asked.pop(key) if each is not users]
            if under_way:
                self._asked[key] = under_way
        back = [member for member in state.members if member.user_id in users]
        for member in back:
            frame = encoding.member_added(channel, member.told_id, member.user_info)
            # With numbers, who is back was not told of the leave.
            own = left_out(None, member.user_id) if state.version else None
            # Nor was who knew a younger state than the leave.
            self._deliver(Publication(app_id, channel, frame, own, version=users[member.user_id]))
        wrong = {member.user_id: users[member.user_id] for member in back}
        self._corrections.note(app_id, channel, wrong, state.version)
