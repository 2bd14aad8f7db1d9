"""One table of counters. Gauges are not counted but read from the hub, so that they cannot drift."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Metrics"]


@dataclass(slots=True)
class Metrics:
    """Totals since the start of this process. Fan-out adds messages times subscribers, once per batch."""

    connections_opened: int = 0
    connections_closed: int = 0
    connections_refused: int = 0
    messages_received: int = 0
    client_events: int = 0
    client_events_refused: int = 0
    publications: int = 0
    deliveries: int = 0
    live_dropped: int = 0
    """Live events left out for subscribers that had much waiting."""
    slow_consumers: int = 0
    http_requests: int = 0
    http_errors: int = 0
    webhooks_sent: int = 0
    webhooks_failed: int = 0
    webhooks_retried: int = 0
    webhooks_dropped: int = 0
    bus_messages_dropped: int = 0
    ingested: int = 0
    ingest_dropped: int = 0
    internal_errors: int = 0

    def snapshot(self) -> dict[str, int]:
        return asdict(self)
