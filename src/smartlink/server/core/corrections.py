"""Changes that were reconciled here before their own publication arrived: they are not announced twice.

A node that rechecks the presence store may see a join or leave whose publication is still on its way. Versions tell
which publications the recheck covers (`presence.base.ChannelState`).
"""

from __future__ import annotations

import asyncio

from smartlink.server.core.newcomers import KNOWN_S

__all__ = ["Corrections"]

_Key = tuple[str, str]


class Corrections:
    """By channel and user, the version up to which clients here know about that user. Plain and synchronous.

    Clients that never received the wrong change were not sent the correction: they still need the change itself.
    """

    def __init__(self, known_s: float = KNOWN_S) -> None:
        self._known_s = known_s
        self._known: dict[_Key, dict[str, tuple[int, int]]] = {}
        """The version of the change that was wrong, and the version up to which it was corrected."""
        self._timers: set[asyncio.TimerHandle] = set()

    def note(self, app_id: str, channel: str, wrong: dict[str, int], version: int) -> None:
        """Note that clients on the channel now know what the state of that version shows of some users.

        `wrong`: by user, the version of the change that was announced last, and was wrong.
        """
        if not version or not wrong:
            return
        entries = {user_id: (number, version) for user_id, number in wrong.items()}
        self._known.setdefault((app_id, channel), {}).update(entries)
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def forget() -> None:
            self._timers.discard(timer)
            self._forget((app_id, channel), entries)

        timer = loop.call_later(self._known_s, forget)
        self._timers.add(timer)

    def covered(self, app_id: str, channel: str, user_id: str, version: int) -> int | None:
        """Return the version of the wrong change whose correction covers `version`, or None."""
        if not version or not self._known:
            return None
        wrong, known = self._known.get((app_id, channel), {}).get(user_id, (0, 0))
        return wrong if version <= known else None

    def stop(self) -> None:
        """Forget everything."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._known.clear()

    def _forget(self, key: _Key, entries: dict[str, tuple[int, int]]) -> None:
        known = self._known[key]
        for user_id, entry in entries.items():
            if known.get(user_id) is entry:
                del known[user_id]
        if not known:
            del self._known[key]
