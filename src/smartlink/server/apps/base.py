"""The port `AppManager` and the records it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smartlink.protocol.errors import Code
from smartlink.server.apps.policies import ChannelPolicy

__all__ = ["App", "AppChange", "AppManager", "AppsInvalid", "OnAppChanges", "WebhookTarget", "ending"]


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """A webhook address of an app. An empty tuple of events or prefixes means all."""

    url: str
    events: tuple[str, ...] = ()
    channel_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class App:
    """A tenant: its credentials and limits. Sizes in bytes, durations in seconds; None means no limit."""

    id: str
    key: str
    secret: str = field(repr=False)
    is_enabled: bool = True
    """When off, clients are refused with 4003 and publishers with 403."""

    # Connections
    max_connections: int = 1_000
    max_connections_per_user: int | None = None
    allowed_origins: tuple[str, ...] = ("*",)
    """`https://example.com:8443` is that origin, `example.com` any origin of that host, `*.example.com` its subdomains.
    """
    ping_interval_s: int = 15
    activity_timeout_s: int = 30
    authorization_timeout_s: int | None = None
    """A connection that has not signed in or joined a private or presence channel by then is closed."""

    # What clients send
    max_message_bytes: int = 10_240
    max_channels: int | None = 1_000
    """Channels per connection."""
    accepts_client_events: bool = True
    accepts_public_client_events: bool = False
    """Also on public channels, if client events are accepted at all."""
    client_events_per_s: int = 10
    presence_joins_per_s: int = 10
    """Presence joins per connection, on average, with bursts of ten times as many: each join and leave is broadcast to
    all members.
    """
    message_rate: tuple[int, int] | None = None
    """At most this many messages in this many seconds."""
    ends_on_rate_limit: bool = False
    max_presence_members: int | None = None
    max_user_info_bytes: int = 1_024

    # What publishers send and receive
    max_channel_length: int = 200
    max_event_name_length: int = 200
    max_event_bytes: int = 10_240
    max_event_channels: int = 100
    max_batch: int = 10
    publishes_per_s: int | None = None
    reads_per_s: int | None = None
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the HTTP API; `*` for any."""
    lists_counts: bool = False
    """Calls that show channels include counts by default, and omit inapplicable ones instead of refusing the call."""
    sends_subscription_counts: bool = False
    cache_ttl_s: int = 1_800
    webhooks: tuple[WebhookTarget, ...] = ()
    channels: tuple[ChannelPolicy, ...] = ()
    """The first whose pattern matches a channel holds on it."""


class AppsInvalid(ValueError):
    """Invalid app definitions; the message has a line per error and contains no secrets."""


@dataclass(frozen=True, slots=True)
class AppChange:
    """A change to one app: `now` is None if it is gone."""

    before: App
    now: App | None


def ending(before: App, now: App | None) -> tuple[Code, str] | None:
    """Code and reason to close a connection admitted as `before`, now that the app is `now`; None if it may stay."""
    if now is None or now.key != before.key:
        return Code.NO_SUCH_APP, "The application is gone"
    if not now.is_enabled:
        return Code.APP_DISABLED, "The application is disabled"
    if now.secret != before.secret:
        # Its signatures are void: let it reconnect and authenticate again.
        return Code.RECONNECT, "The application's secret has changed"
    return None


OnAppChanges = Callable[[Sequence[AppChange]], None]


class AppManager(Protocol):
    """Looks up the tenants.

    tests/conformance/test_apps.py checks these promises for every engine: lookups by key and by id return the same
    record; unknown ones return None, never raise; lookups never block. A change at the source is passed to `on_change`
    once, after lookups reflect it; an unreadable or invalid source changes nothing.
    """

    async def start(self, on_change: OnAppChanges) -> None:
        """Load the apps and watch for changes. `on_change` is synchronous and must not raise. Raises AppsInvalid."""

    async def reload(self) -> None:
        """Reload the apps now. Raises AppsInvalid and keeps the old apps if that fails."""

    async def stop(self) -> None: ...

    def by_key(self, key: str) -> App | None: ...

    def by_id(self, app_id: str) -> App | None: ...

    def all(self) -> Iterable[App]: ...
