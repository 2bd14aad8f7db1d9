"""Policies of channels: what an application lets happen on those whose names match a pattern."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from smartlink.protocol.names import is_internal
from smartlink.server.apps.patterns import covers, matches

if TYPE_CHECKING:
    from smartlink.server.apps.base import AppManager

__all__ = ["DEFAULT_POLICY", "ChannelPolicy", "PolicyTable", "describe", "never_holds"]

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


def describe(policy: ChannelPolicy) -> str:
    """Say in one line what a policy does."""
    says = []
    if policy.history is not None:
        says.append(f"keeps {policy.history} events for {policy.history_ttl_s} s, at most {policy.history_bytes} bytes")
    if policy.conflate_ms is not None:
        says.append(f"sends each subscriber at most one event per name in {policy.conflate_ms} ms")
    if policy.receipts:
        says.append("reports who has received an event")
    if policy.client_events is not None:
        says.append(_CLIENT_EVENTS[policy.client_events])
    if policy.client_events_per_s is not None:
        says.append(f"takes {policy.client_events_per_s} client events a second from each connection")
    if policy.max_subscribers is not None:
        says.append(f"has at most {policy.max_subscribers} subscribers")
    if policy.max_event_bytes is not None:
        says.append(f"takes events of at most {policy.max_event_bytes} bytes")
    if policy.presence_grace_s:
        says.append(f"keeps lost members for {policy.presence_grace_s} s")
    if policy.subscription_count is not None:
        says.append("sends subscription counts" if policy.subscription_count else "sends no subscription counts")
    if not policy.webhooks:
        says.append("sends no webhooks")
    return ", ".join(says) or "changes nothing"


_CLIENT_EVENTS: Final = {
    "none": "takes no client events",
    "members": "takes client events on private and presence channels",
    "all": "takes client events, on public channels too",
}


def never_holds(policies: Sequence[ChannelPolicy], number: int) -> str | None:
    """Why the policy at an index can hold on no channel; None if it can, or if that is too hard to tell."""
    pattern, before = policies[number].pattern, [policy.pattern for policy in policies[:number]]
    for earlier in before:
        if covers([earlier], pattern):
            return f"never holds: {earlier} comes first and matches the same channels"
    if len(before) > 1 and covers(before, pattern):
        return "never holds: the patterns before it match the same channels"
    return None


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
