"""The port `SessionStore`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["MAX_APP_BYTES", "SessionStore"]

MAX_APP_BYTES = 33_554_432
"""Memory for the sessions of one application, including overhead."""


class SessionStore(Protocol):
    """Stores what sessions hold, for whichever node their clients come back to.

    tests/conformance/test_sessions.py checks these promises for every engine: a new owner gets what was saved last, and
    the former one can save nothing more; apps are isolated. An app over its memory limit loses its own sessions saved
    longest ago. Raises BrokerUnavailable if the other nodes are unreachable.

    `name` is a digest of the client's token; `owner` names one socket, and is new for each.
    """

    def ask_for_open(self, give_up: Callable[[str, str], bytes | None]) -> bool:
        """Offer to be asked for the sessions of open sockets. Returns whether the store will ask.

        If it does, they need not be saved before they end: `give_up(app_id, name)` is called when another node takes
        one, and returns what it holds; None if this node does not have it.
        """

    async def take(self, app_id: str, name: str, owner: str) -> bytes | None:
        """Make `owner` the session's owner. Returns what was saved last, or None if nothing is stored."""

    async def save(self, app_id: str, name: str, owner: str, content: bytes, ttl_s: float) -> bool:
        """Store what the session holds, for `ttl_s` seconds. Returns False, and stores nothing, if another took it."""

    async def revoke(self, app_id: str, subject: str, ttl_s: float) -> None:
        """Mark a subject: what was granted about it so far no longer holds. The mark lasts `ttl_s` seconds."""

    async def marks(self, app_id: str, subjects: Sequence[str]) -> Sequence[int]:
        """Return the last mark of each subject, a number that no other mark has; 0 if there is none."""
