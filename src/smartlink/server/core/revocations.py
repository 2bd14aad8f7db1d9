"""What was revoked, so that signatures made before are void afterwards: users whose connections were ended, channels.

A signature names a connection and perhaps a user, but no time: it may be presented at any moment until the connection
ends. So each process remembers a revocation as long as it has a connection that is older. Connections live in one
process only, so no other process needs to know about them.
"""

from __future__ import annotations

import enum

__all__ = ["MAX_SUBJECTS", "Revocations", "Verdict"]

MAX_SUBJECTS = 10_000
"""Revocations remembered per application. Beyond, the oldest is forgotten, and older connections must reconnect."""


class Verdict(enum.Enum):
    """What to do with a signature."""

    VALID = enum.auto()
    VOID = enum.auto()
    """It was revoked after the connection began: refuse."""
    STALE = enum.auto()
    """The client must reconnect and authorize again: refuse, and close the connection."""


class _App:
    __slots__ = ("forgotten_at", "subjects")

    def __init__(self) -> None:
        self.subjects: dict[str, tuple[int, Verdict]] = {}
        """Oldest revocation first: when, and the verdict."""
        self.forgotten_at = 0
        """The latest revocation that was forgotten."""


class Revocations:
    """Orders revocations and the starts of connections by one counter. Plain and synchronous."""

    def __init__(self, max_subjects: int = MAX_SUBJECTS) -> None:
        self._max_subjects = max_subjects
        self._count = 0
        self._missed_at = 0
        self._apps: dict[str, _App] = {}

    @property
    def now(self) -> int:
        """The counter for a connection that begins now: it is newer than all revocations so far."""
        return self._count

    def revoke(self, app_id: str, subject: str, verdict: Verdict, oldest: int | None) -> None:
        """Void signatures about the subject on all connections so far. `oldest`: when the app's first one began."""
        self._count += 1
        if oldest is None:
            self._apps.pop(app_id, None)
            return
        app = self._apps.setdefault(app_id, _App())
        self._prune(app, oldest)
        app.subjects.pop(subject, None)
        app.subjects[subject] = (self._count, verdict)
        if len(app.subjects) > self._max_subjects:
            app.forgotten_at, _ = app.subjects.pop(next(iter(app.subjects)))

    def revoke_all(self) -> None:
        """Treat all signatures on connections so far as stale: revocations may have been missed."""
        self._count += 1
        self._missed_at = self._count

    def may_concern(self, app_id: str, began_at: int) -> bool:
        """Whether any verdict about a connection that began then can be other than VALID."""
        return app_id in self._apps or began_at < self._missed_at

    def verdict(self, app_id: str, subject: str, began_at: int) -> Verdict:
        """Decide whether a connection that began then may still present a signature about the subject."""
        app = self._apps.get(app_id)
        if app is not None:
            told_at, verdict = app.subjects.get(subject, (0, Verdict.VALID))
            if began_at < told_at:
                return verdict
            if began_at < app.forgotten_at:
                return Verdict.STALE
        return Verdict.STALE if began_at < self._missed_at else Verdict.VALID

    def forget(self, app_id: str) -> None:
        """Forget an app that has no connection here."""
        self._apps.pop(app_id, None)

    @staticmethod
    def _prune(app: _App, oldest: int) -> None:
        """Forget revocations that no connection is older than."""
        while app.subjects:
            subject, (told_at, _) = next(iter(app.subjects.items()))
            if told_at > oldest:
                return
            del app.subjects[subject]
