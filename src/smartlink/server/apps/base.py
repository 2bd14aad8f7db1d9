"""The port `AppManager` and the record it hands out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smartlink.protocol.errors import Code

__all__ = ["App", "AppChange", "AppManager", "AppsInvalid", "OnAppChanges", "WebhookTarget", "ending"]


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """One address that hears of an app's events. An empty tuple of events or prefixes means all."""

    url: str
    events: tuple[str, ...] = ()
    channel_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class App:
    """A tenant: its credentials and limits. Sizes in bytes, durations in seconds; None: no limit."""

    id: str
    key: str
    secret: str = field(repr=False)
    is_enabled: bool = True
    """Off, its clients are refused with 4003 and its publishers with 403."""

    # Connections
    max_connections: int = 1_000
    max_connections_per_user: int | None = None
    allowed_origins: tuple[str, ...] = ("*",)
    """`https://example.com:8443` is that origin, `example.com` any origin of that host, `*.example.com` those below."""
    ping_interval_s: int = 15
    activity_timeout_s: int = 30
    authorization_timeout_s: int | None = None
    """A connection that has neither signed in nor joined a private or presence channel by then is closed."""

    # What clients send
    max_message_bytes: int = 10_240
    max_channels: int | None = 1_000
    """Channels one connection may be on."""
    accepts_client_events: bool = True
    accepts_public_client_events: bool = False
    """On public channels, too, where it accepts any."""
    client_events_per_s: int = 10
    presence_joins_per_s: int = 10
    """Joins of presence channels by one connection, on average: ten times as many at once. Each is told to all members,
    as is the leave before it."""
    message_rate: tuple[int, int] | None = None
    """Messages and seconds: at most so many in so long."""
    ends_on_rate_limit: bool = False
    max_presence_members: int | None = None
    max_user_info_bytes: int = 1_024

    # What publishers send, and what they hear
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
    """The calls that show channels tell counts unasked, and leave out what does not apply instead of refusing it."""
    sends_subscription_counts: bool = False
    cache_ttl_s: int = 1_800
    webhooks: tuple[WebhookTarget, ...] = ()


class AppsInvalid(ValueError):
    """Apps that cannot be served as they are described; a line for each fault, none with a secret in it."""


@dataclass(frozen=True, slots=True)
class AppChange:
    """What became of one app: `now` is None when it is gone."""

    before: App
    now: App | None


def ending(before: App, now: App | None) -> tuple[Code, str] | None:
    """Why a connection that was let in as `before` ends now that the app is `now`; None where it stays."""
    if now is None or now.key != before.key:
        return Code.NO_SUCH_APP, "The application is gone"
    if not now.is_enabled:
        return Code.APP_DISABLED, "The application is disabled"
    if now.secret != before.secret:
        # What it was let in with no longer signs: it comes back and is let in anew.
        return Code.RECONNECT, "The application's secret has changed"
    return None


OnAppChanges = Callable[[Sequence[AppChange]], None]


class AppManager(Protocol):
    """Knows the tenants.

    Promises, tried on every engine by tests/conformance/test_apps.py: an app found by key or id is the same record;
    unknown is None and never an error; looking up never waits. What is changed where the apps come from is told to
    `on_change` once, after look-ups know it; what cannot be read or makes no sense changes nothing.
    """

    async def start(self, on_change: OnAppChanges) -> None:
        """Read the apps and begin to watch. `on_change` is plain and must not raise. Raises AppsInvalid."""

    async def reload(self) -> None:
        """Read the apps again, now. Raises AppsInvalid, and then the old ones stay."""

    async def stop(self) -> None: ...

    def by_key(self, key: str) -> App | None: ...

    def by_id(self, app_id: str) -> App | None: ...

    def all(self) -> Iterable[App]: ...
