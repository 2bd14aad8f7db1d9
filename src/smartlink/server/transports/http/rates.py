"""Rate limits of publishing and reading: two token buckets per app."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from smartlink.server.apps.base import App
from smartlink.server.net.requests import HttpError
from smartlink.server.runtime.limits import TokenBucket

__all__ = ["Rates"]


class Rates:
    """The buckets of all apps with a limit; bursts of one second's worth are allowed."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._buckets: dict[tuple[str, str], TokenBucket] = {}

    def publish(self, app: App, events: int) -> None:
        """Charge for events, one per channel they go to. Raises HttpError 429 without charging."""
        if app.publishes_per_s is not None:
            self._take(app, "publishes_per_s", app.publishes_per_s, events)

    def read(self, app: App) -> None:
        """Charge for a call that does not publish. Raises HttpError 429."""
        if app.reads_per_s is not None:
            self._take(app, "reads_per_s", app.reads_per_s, 1)

    def forget(self, app: App) -> None:
        """The app is gone, or its limits have changed."""
        for limit in ("publishes_per_s", "reads_per_s"):
            self._buckets.pop((app.id, limit), None)

    def _take(self, app: App, limit: str, per_s: int, cost: int) -> None:
        now = self._now()
        bucket = self._buckets.get((app.id, limit))
        if bucket is None or bucket.per_second != per_s:
            bucket = self._buckets[app.id, limit] = TokenBucket(per_s, per_s, now)
        if not bucket.take(now, cost):
            wait_s = max(1, math.ceil(bucket.wait_s(cost)))
            what = "events" if limit == "publishes_per_s" else "calls"
            raise HttpError(
                429, f"More than {per_s} {what} a second: try again in {wait_s} s", {"Retry-After": str(wait_s)}
            )
