"""What was put right here before the change itself came: the change is not told a second time.

A node that looks at the roster may see a coming or going whose publication is still on its way. Numbers say which
publications that look covers (`roster.base.State`).
"""

from __future__ import annotations

import asyncio

from smartlink.server.newcomers import KNOWN_S

__all__ = ["Corrections"]

_Key = tuple[str, str]


class Corrections:
    """By channel and user, the number up to which those here know of that user. Plain and synchronous."""

    def __init__(self, known_s: float = KNOWN_S) -> None:
        self._known_s = known_s
        self._known: dict[_Key, dict[str, int]] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    def note(self, app_id: str, channel: str, user_ids: list[str], version: int) -> None:
        """Those on the channel here have been told of these users what the state of that version shows."""
        if not version or not user_ids:
            return
        self._known.setdefault((app_id, channel), {}).update(dict.fromkeys(user_ids, version))
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def forget() -> None:
            self._timers.discard(timer)
            self._forget((app_id, channel), user_ids, version)

        timer = loop.call_later(self._known_s, forget)
        self._timers.add(timer)

    def cover(self, app_id: str, channel: str, user_id: str, version: int) -> bool:
        """Whether a change of that number about the user is known here already."""
        return bool(self._known) and 0 < version <= self._known.get((app_id, channel), {}).get(user_id, 0)

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._known.clear()

    def _forget(self, key: _Key, user_ids: list[str], version: int) -> None:
        known = self._known[key]
        for user_id in user_ids:
            if known.get(user_id) == version:
                del known[user_id]
        if not known:
            del self._known[key]
