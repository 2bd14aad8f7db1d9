"""Pauses between attempts at something that keeps failing."""

from __future__ import annotations

import random

__all__ = ["Backoff"]

_random = random.Random()  # noqa: S311 - jitter is not a secret
"""Our own: a draw from the shared generator would change what seeded tests of applications see."""


class Backoff:
    """Pauses of `first_s` seconds at first, twice as long each time, up to `last_s`.

    `jitter` shortens each by a random part, up to that fraction, so that many clients do not retry at the same time.
    """

    def __init__(self, first_s: float, last_s: float, *, jitter: float = 0.5) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._jitter = jitter
        self._next_s = first_s

    def next_s(self) -> float:
        """Return how long to wait before the next attempt, in seconds."""
        pause_s = self._next_s
        self._next_s = min(pause_s * 2, self._last_s)
        return pause_s * _random.uniform(1 - self._jitter, 1)

    def reset(self) -> None:
        """Start over after a success."""
        self._next_s = self._first_s
