"""Policies of channels: what an application lets happen on those whose names match a pattern."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from smartlink.server.apps.base import App

__all__ = ["DEFAULT_POLICY", "ChannelPolicy", "PolicyTable", "matches"]

MAX_REMEMBERED = 10_000
"""Channels per application whose policy is remembered."""


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """What holds on the channels that `pattern` matches. None leaves a matter to the application's own setting.

    In a pattern `*` stands for any text without a dot, `**` for any text.
    """

    pattern: str
    history: int | None = None
    """Events kept for clients that come back and for `GET channels/{channel}/events`, without anybody subscribed."""
    history_ttl_s: int = 120
    history_bytes: int = 1_048_576
    conflate_ms: int | None = None
    """At most one event per name and this time to each subscriber; the last one always arrives."""
    receipts: bool = False
    """Tell the application by webhook when clients with a session have handled an event."""
    client_events: str | None = None
    """Who may send them: none, members or all."""
    client_events_per_s: int | None = None
    max_subscribers: int | None = None
    max_event_bytes: int | None = None
    presence_grace_s: int = 0
    """How long a member whose connection was lost stays one, for them to come back unnoticed."""
    subscription_count: bool | None = None
    webhooks: bool = True


DEFAULT_POLICY: Final = ChannelPolicy("**")


@lru_cache(maxsize=10_000)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join({"**": ".*", "*": "[^.]*"}.get(part, re.escape(part)) for part in parts) + r"\Z")


def matches(pattern: str, channel: str) -> bool:
    """Whether a policy's pattern matches the whole name."""
    return _compiled(pattern).match(channel) is not None


class PolicyTable:
    """Finds the policy of each channel: the first that matches."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[tuple[ChannelPolicy, ...], dict[str, ChannelPolicy]]] = {}

    def of(self, app: App, channel: str) -> ChannelPolicy:
        """Return the policy that holds on a channel of the app."""
        if not app.channels:
            return DEFAULT_POLICY
        policies, found = self._found.get(app.id, ((), {}))
        if policies is not app.channels or len(found) > MAX_REMEMBERED:
            policies, found = self._found[app.id] = (app.channels, {})
        policy = found.get(channel)
        if policy is None:
            matching = (each for each in policies if matches(each.pattern, channel))
            policy = found[channel] = next(matching, DEFAULT_POLICY)
        return policy
