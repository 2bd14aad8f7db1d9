"""How often one client may do what its application limits."""

from __future__ import annotations

from smartlink.server.apps.base import App
from smartlink.server.apps.policies import ChannelPolicy
from smartlink.server.runtime.limits import TokenBucket

__all__ = ["ClientRates"]

JOINS_AT_ONCE = 10
"""Seconds' worth of presence joins that may arrive at once, as when a page loads."""


class ClientRates:
    """The buckets of one connection, each made when it is first needed. Times are the sweeper's."""

    __slots__ = ("_app", "_events", "_joins", "_messages", "_of_policies")

    def __init__(self, app: App) -> None:
        self._app = app
        self._messages: TokenBucket | None = None
        self._events: TokenBucket | None = None
        self._joins: TokenBucket | None = None
        self._of_policies: dict[tuple[str, int], TokenBucket] | None = None
        """By pattern and rate."""

    def may_send(self, rate: tuple[int, int], now: float) -> bool:
        """Whether one more message is within `rate`: so many, in so many seconds."""
        if self._messages is None:
            self._messages = TokenBucket(rate[0], rate[0] / rate[1], now)
        return self._messages.take(now)

    def may_join(self, now: float) -> bool:
        """Whether the client may join one more presence channel."""
        if self._joins is None:
            rate = self._app.presence_joins_per_s
            self._joins = TokenBucket(rate * JOINS_AT_ONCE, rate, now)
        return self._joins.take(now)

    def may_whisper(self, policy: ChannelPolicy, now: float) -> bool:
        """Whether the client may send one more event on channels with this policy."""
        if (rate := policy.client_events_per_s) is None:
            if self._events is None:
                self._events = TokenBucket(self._app.client_events_per_s, self._app.client_events_per_s, now)
            return self._events.take(now)
        if self._of_policies is None:
            self._of_policies = {}
        bucket = self._of_policies.get((policy.pattern, rate))
        if bucket is None:
            bucket = self._of_policies[policy.pattern, rate] = TokenBucket(rate, rate, now)
        return bucket.take(now)
