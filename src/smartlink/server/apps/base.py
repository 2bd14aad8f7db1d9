"""The port `AppManager` and the record it hands out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from smartlink.protocol.session import SessionRules

__all__ = ["App", "AppManager"]


@dataclass(frozen=True, slots=True)
class App:
    """A tenant: its credentials and limits. Sizes in bytes, durations in seconds."""

    id: str
    key: str
    secret: str = field(repr=False)
    max_connections: int = 1_000
    max_message_bytes: int = 10_240
    max_event_bytes: int = 10_240
    ping_interval_s: int = 15
    activity_timeout_s: int = 30
    accepts_client_events: bool = True
    client_events_per_s: int = 10
    max_channels: int | None = None
    message_rate: tuple[int, int] | None = None
    """Messages and seconds: at most so many in so long. None: no limit."""
    ends_on_rate_limit: bool = False
    allowed_origins: tuple[str, ...] = ("*",)
    webhook_url: str | None = None

    def rules(self) -> SessionRules:
        return SessionRules(
            key=self.key,
            secret=self.secret,
            activity_timeout_s=self.activity_timeout_s,
            accepts_client_events=self.accepts_client_events,
            max_channels=self.max_channels,
        )


class AppManager(Protocol):
    """Knows the tenants.

    Promises, tried on every engine by tests/conformance/test_apps.py: an app found by key or id is the same record;
    unknown is None and never an error.
    """

    def by_key(self, key: str) -> App | None: ...

    def by_id(self, app_id: str) -> App | None: ...

    def all(self) -> Iterable[App]: ...
