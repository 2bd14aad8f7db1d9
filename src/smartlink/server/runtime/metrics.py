"""One table of counters. Gauges are not counted but read from the hub, so that they cannot drift.

Counters that alerts watch begin at 0: Prometheus sees no increase in one that appears with its first value.

Counting costs one addition: no label look-ups or locks on a message's path. A process exports its counters as samples,
plain numbers by name, which `merge` adds up over the workers of a machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from smartlink.prometheus import Histogram, Samples, sample_name

__all__ = ["WEBHOOK_SAMPLES", "AppMetrics", "Metrics", "counters_only", "merge"]

_LASTING = ("_total", "_bucket", "_sum", "_count")


WEBHOOK_SAMPLES = {
    outcome: sample_name("smartlink_webhook_events_total", outcome=outcome)
    for outcome in ("sent", "retried", "failed", "dropped")
}
"""The samples that count webhook outcomes."""


def merge(sources: Iterable[Mapping[str, float]]) -> Samples:
    """Add samples up."""
    merged: Samples = {}
    for source in sources:
        for name, value in source.items():
            merged[name] = merged.get(name, 0) + value
    return merged


def counters_only(samples: Mapping[str, float]) -> Samples:
    """The samples that outlive the process that counted them: counters, not gauges."""
    return {name: value for name, value in samples.items() if name.partition("{")[0].endswith(_LASTING)}


_CLASSES = tuple(f"{hundreds}xx" for hundreds in range(6))


@dataclass(slots=True)
class AppMetrics:
    """Totals of one application."""

    connections_opened: int = 0
    connections_closed: int = 0
    messages_received: int = 0
    bytes_received: int = 0
    http_calls: int = 0
    http_bytes_received: int = 0
    http_bytes_sent: int = 0
    http_errors: dict[str, int] = field(default_factory=lambda: {"4xx": 0, "5xx": 0})
    """HTTP calls that failed, by status class: `4xx`, `5xx`."""
    http: Histogram = field(default_factory=lambda: Histogram(Histogram.COARSE))
    """How long its admitted HTTP calls took."""
    publications: int = 0
    limited: dict[str, int] = field(default_factory=lambda: {"message": 0, "client_event": 0, "http": 0})
    """What was over a rate: `message`, `client_event` or `http`."""
    behind: int = 0
    """Connections with a backlog now."""

    def limit(self, kind: str) -> None:
        """Count something over a rate."""
        self.limited[kind] = self.limited.get(kind, 0) + 1

    def fail_call(self, status: int) -> None:
        """Count an HTTP call that failed."""
        kind = _CLASSES[status // 100]
        self.http_errors[kind] = self.http_errors.get(kind, 0) + 1
        if status == 429:
            self.limit("http")


@dataclass(slots=True)
class Metrics:
    """Totals since the process started. Fan-out adds messages times subscribers, once per batch."""

    connections_opened: int = 0
    connections_closed: int = 0
    connections_refused: int = 0
    messages_received: int = 0
    client_events: int = 0
    publications: int = 0
    deliveries: int = 0
    bytes_sent: int = 0
    live_dropped: int = 0
    """Live events skipped for subscribers with a backlog."""
    conflated: int = 0
    """Events replaced by a later one before they were sent."""
    slow_consumers: int = 0
    http_requests: int = 0
    http_errors: int = 0
    sessions_resumed: int = 0
    """Channels whose missed events were all sent again."""
    sessions_failed: dict[str, int] = field(default_factory=lambda: {"gap": 0, "unknown": 0})
    frames_replayed: int = 0
    barriers: int = 0
    webhooks_sent: int = 0
    webhooks_failed: int = 0
    webhooks_retried: int = 0
    webhooks_dropped: int = 0
    bus_messages_dropped: int = 0
    ingested: int = 0
    ingest_dropped: int = 0
    internal_errors: int = 0
    loop_lag_s: float = 0.0
    """The loop's lag when last measured."""
    refusals: dict[str, int] = field(default_factory=lambda: {"over_capacity": 0})
    """Connections refused, by reason."""
    http_statuses: dict[str, int] = field(default_factory=dict)
    """HTTP responses by status class, such as `2xx`."""
    apps: dict[str, AppMetrics] = field(default_factory=dict)
    fanout: Histogram = field(default_factory=Histogram)
    """From the first publication of a batch until it is written to all."""
    publish: Histogram = field(default_factory=Histogram)
    """From `Node.publish` until the broker has it."""
    delivery: Histogram = field(default_factory=Histogram)
    """From `Node.publish`, on whichever node, until it is written to all subscribers here; per batch, of its first."""
    redis: Histogram = field(default_factory=Histogram)
    """Round trips of pipelined commands."""
    confirm: Histogram = field(default_factory=Histogram)
    """From a barrier until its client confirmed."""

    def app(self, app_id: str) -> AppMetrics:
        """The totals of an existing application."""
        found = self.apps.get(app_id)
        if found is None:
            found = self.apps[app_id] = AppMetrics()
        return found

    def refuse(self, reason: str) -> None:
        """Count a refused connection."""
        self.connections_refused += 1
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def answered(self, status: int) -> None:
        """Count an answered HTTP call."""
        kind = _CLASSES[status // 100]
        self.http_statuses[kind] = self.http_statuses.get(kind, 0) + 1
