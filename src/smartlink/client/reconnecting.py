"""When a client comes back after its connection has ended.

By close code, as pusher-js does: after 4000 to 4099 and from 4300 never, after 4200 to 4299 at once, after anything
else with a pause that grows from 1 s to 30 s, shortened by chance to as little as half. There is no last attempt.
"""

from __future__ import annotations

from dataclasses import dataclass

from smartlink.backoff import Backoff

__all__ = ["End", "Reconnecting"]

FIRST_S, LAST_S = 1.0, 30.0
STEADY_S = 1.0
"""A connection that lasted so long begins the pauses anew; a shorter one does not come back at once, either."""


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended: its close code, or None if it was lost or never opened."""

    code: int | None
    reason: str
    is_final: bool = False
    """The address or the certificate is wrong: trying again would not help."""


class Reconnecting:
    """The pauses of one client."""

    def __init__(self, first_s: float = FIRST_S, last_s: float = LAST_S) -> None:
        self._backoff = Backoff(first_s, last_s)
        self._was_at_once = False

    def pause_s(self, end: End, lasted_s: float) -> float | None:
        """Return how long to wait after a connection of `lasted_s` seconds; None for never again."""
        code = end.code or 0
        if end.is_final or 4000 <= code < 4100 or code >= 4300:
            return None
        if lasted_s >= STEADY_S:
            self._backoff.reset()
            self._was_at_once = False
        if 4200 <= code < 4300 and not self._was_at_once:
            self._was_at_once = True
            return 0.0
        return self._backoff.next_s()
