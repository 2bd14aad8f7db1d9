"""Whose connections were ended, so that nothing signed before counts afterwards.

A signature names a connection and a user but not its time: until the connection ends, it may be shown at any moment.
So each process remembers what it was told, as long as it has a connection that is older than the word. Connections
live in one process only, so nobody else needs to know of theirs.
"""

from __future__ import annotations

import enum

__all__ = ["MAX_USERS", "Revocations", "Verdict"]

MAX_USERS = 10_000
"""Users remembered per application. Beyond, the oldest is forgotten, and with it what older connections may show."""


class Verdict(enum.Enum):
    """What to do about a signature that names a user."""

    VALID = enum.auto()
    VOID = enum.auto()
    """The user's connections were ended after this one had begun: refuse."""
    STALE = enum.auto()
    """The connection is to be made anew and authorised again: refuse, and send it away to come back."""


class _App:
    __slots__ = ("forgotten_at", "users")

    def __init__(self) -> None:
        self.users: dict[str, tuple[int, Verdict]] = {}
        """By user id, oldest word first."""
        self.forgotten_at = 0
        """The latest word that is not remembered any more."""


class Revocations:
    """Orders words about users, and the beginnings of connections, by one counter. Plain and synchronous."""

    def __init__(self, max_users: int = MAX_USERS) -> None:
        self._max_users = max_users
        self._count = 0
        self._missed_at = 0
        self._apps: dict[str, _App] = {}

    @property
    def now(self) -> int:
        """What a connection that begins now is to keep: it is younger than all that was told."""
        return self._count

    def revoke(self, app_id: str, user_id: str, verdict: Verdict, oldest: int | None) -> None:
        """Void what names the user on every connection so far. `oldest`: when the app's oldest one here began."""
        self._count += 1
        if oldest is None:
            self._apps.pop(app_id, None)
            return
        app = self._apps.setdefault(app_id, _App())
        self._prune(app, oldest)
        app.users.pop(user_id, None)
        app.users[user_id] = (self._count, verdict)
        if len(app.users) > self._max_users:
            app.forgotten_at, _ = app.users.pop(next(iter(app.users)))

    def revoke_all(self) -> None:
        """Words may have been missed: whatever the connections so far show from now on, it may be void."""
        self._count += 1
        self._missed_at = self._count

    def verdict(self, app_id: str, user_id: str, began_at: int) -> Verdict:
        """Whether a connection that began then may still show what names the user."""
        app = self._apps.get(app_id)
        if app is not None:
            told_at, verdict = app.users.get(user_id, (0, Verdict.VALID))
            if began_at < told_at:
                return verdict
            if began_at < app.forgotten_at:
                return Verdict.STALE
        return Verdict.STALE if began_at < self._missed_at else Verdict.VALID

    def forget(self, app_id: str) -> None:
        """The app has no connection here any more."""
        self._apps.pop(app_id, None)

    @staticmethod
    def _prune(app: _App, oldest: int) -> None:
        """Forget words that no connection is older than."""
        while app.users:
            user_id, (told_at, _) = next(iter(app.users.items()))
            if told_at > oldest:
                return
            del app.users[user_id]
