"""Policies of channels: what an application lets happen on those whose names match a pattern."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from smartlink.protocol.names import is_internal

if TYPE_CHECKING:
    from smartlink.server.apps.base import AppManager

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
    """Finds the policy of each channel: the first of its application, as it is now, that matches.

    None holds on the server's own channels, such as those of users.
    """

    def __init__(self, apps: AppManager) -> None:
        self._apps = apps
        self._found: dict[str, tuple[tuple[ChannelPolicy, ...], dict[str, ChannelPolicy]]] = {}
        self._client_events: dict[str, Callable[[str], str | None]] = {}

    def of(self, app_id: str, channel: str) -> ChannelPolicy:
        """Return the policy that holds on a channel of the app."""
        app = self._apps.by_id(app_id)
        if app is None or not app.channels:
            return DEFAULT_POLICY
        policies, found = self._found.get(app_id, ((), {}))
        if policies is not app.channels or len(found) > MAX_REMEMBERED:
            policies, found = self._found[app_id] = (app.channels, {})
        policy = found.get(channel)
        if policy is None:
            matching = (each for each in policies if matches(each.pattern, channel))
            policy = found[channel] = DEFAULT_POLICY if is_internal(channel) else next(matching, DEFAULT_POLICY)
        return policy

    def client_events_of(self, app_id: str) -> Callable[[str], str | None]:
        """Return what tells who may send client events on a channel: the same function for all its connections."""
        found = self._client_events.get(app_id)
        if found is None:
            found = self._client_events[app_id] = partial(self._client_events_on, app_id)
        return found

    def _client_events_on(self, app_id: str, channel: str) -> str | None:
        return self.of(app_id, channel).client_events
