"""Members of presence channels who were told to have left although they are here.

A user whose last connection leaves one node at the moment their next one comes to another is told to have left by the
one and to have come by the other. Everybody hears both in one order, but that may not be the order it happened in.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from smartlink.protocol.session import Member
from smartlink.server.hub import Hub

__all__ = ["WAIT_S", "Members"]

WAIT_S = 0.5
"""How long at most the one who saw the user come has to be heard, too; half of it at least."""

_Key = tuple[str, str, str]


class Members:
    """Has a member announced again who is here, and whose leave was heard last.

    `announce` is called with app id, channel and the member.
    """

    def __init__(self, hub: Hub, announce: Callable[[str, str, Member], None], wait_s: float = WAIT_S) -> None:
        self._hub = hub
        self._announce = announce
        self._wait_s = wait_s
        self._missed: dict[_Key, asyncio.TimerHandle] = {}

    def heard(self, app_id: str, channel: str, user_id: str, *, has_come: bool) -> None:
        """This was told on the channel, by whichever node."""
        key = (app_id, channel, user_id)
        if has_come:
            if (timer := self._missed.pop(key, None)) is not None:
                timer.cancel()
        elif key not in self._missed and self._here(*key) is not None:
            # Other nodes may have the user, too: one speaks first, and the others hear it.
            wait_s = self._wait_s * random.uniform(0.5, 1.0)  # noqa: S311 — no secret
            self._missed[key] = asyncio.get_running_loop().call_later(wait_s, self._look, key)

    def stop(self) -> None:
        for timer in self._missed.values():
            timer.cancel()
        self._missed.clear()

    def _look(self, key: _Key) -> None:
        del self._missed[key]
        member = self._here(*key)
        if member is not None:
            self._announce(key[0], key[1], member)

    def _here(self, app_id: str, channel: str, user_id: str) -> Member | None:
        for connection in self._hub.of_user(app_id, user_id):
            member = connection.session.channels.get(channel)
            if member is not None and member.user_id == user_id:
                return member
        return None
