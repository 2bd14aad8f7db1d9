"""Every metric there is: its name, kind, labels and meaning. docs/reference/metrics.md is checked against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "Metric"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `soketi`: the name under which it is told a second time, with the port as a label."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    soketi: str | None = None


METRICS = (
    Metric("smartlink_connections", "gauge", "Connections open now.", ("app_id",), "soketi_connected"),
    Metric(
        "smartlink_connections_opened_total",
        "counter",
        "Connections that were greeted.",
        ("app_id",),
        "soketi_new_connections_total",
    ),
    Metric(
        "smartlink_connections_closed_total",
        "counter",
        "Connections that ended.",
        ("app_id",),
        "soketi_new_disconnections_total",
    ),
    Metric("smartlink_connections_refused_total", "counter", "Connections that were refused.", ("reason",)),
    Metric("smartlink_subscriptions", "gauge", "Subscriptions now: connections times their channels.", ("app_id",)),
    Metric("smartlink_channels", "gauge", "Channels with subscribers at this worker.", ("app_id", "worker")),
    Metric(
        "smartlink_messages_received_total",
        "counter",
        "Messages that clients sent.",
        ("app_id",),
        "soketi_ws_messages_received_total",
    ),
    Metric(
        "smartlink_received_bytes_total",
        "counter",
        "Bytes of these messages.",
        ("app_id",),
        "soketi_socket_received_bytes",
    ),
    Metric("smartlink_client_events_total", "counter", "Client events that were handed on."),
    Metric("smartlink_publications_total", "counter", "Events published: by the HTTP API and by clients."),
    Metric(
        "smartlink_deliveries_total",
        "counter",
        "Messages written to subscribers: each event times its subscribers.",
        (),
        "soketi_ws_messages_sent_total",
    ),
    Metric(
        "smartlink_sent_bytes_total",
        "counter",
        "Bytes written to clients, framing included.",
        (),
        "soketi_socket_transmitted_bytes",
    ),
    Metric("smartlink_live_dropped_total", "counter", "Live events left out for clients that were behind."),
    Metric("smartlink_slow_consumers_total", "counter", "Connections cut because they read too slowly."),
    Metric(
        "smartlink_rate_limited_total", "counter", "What went over a limit: message, client_event, http.", ("kind",)
    ),
    Metric("smartlink_fanout_seconds", "histogram", "From the first event of a batch until all have it.", ("le",)),
    Metric("smartlink_publish_seconds", "histogram", "From a publication until the broker has it.", ("le",)),
    Metric("smartlink_http_requests_total", "counter", "HTTP API calls by class of status.", ("status",)),
    Metric(
        "smartlink_http_calls_total",
        "counter",
        "Signed HTTP API calls.",
        ("app_id",),
        "soketi_http_calls_received_total",
    ),
    Metric(
        "smartlink_http_received_bytes_total",
        "counter",
        "Bytes of their bodies.",
        ("app_id",),
        "soketi_http_received_bytes",
    ),
    Metric(
        "smartlink_http_sent_bytes_total",
        "counter",
        "Bytes of their answers.",
        ("app_id",),
        "soketi_http_transmitted_bytes",
    ),
    Metric(
        "smartlink_webhook_events_total",
        "counter",
        "Webhook events: sent, retried, failed, dropped.",
        ("outcome",),
    ),
    Metric("smartlink_bus_messages_dropped_total", "counter", "Messages on the Redis bus that no node of ours sends."),
    Metric("smartlink_ingested_total", "counter", "Events that applications published to Redis."),
    Metric("smartlink_ingest_dropped_total", "counter", "Such events that made no sense."),
    Metric("smartlink_internal_errors_total", "counter", "Faults of the server itself; each is in the log."),
    Metric("smartlink_workers_ready", "gauge", "Workers that accept connections."),
    Metric("smartlink_workers_apart", "gauge", "Workers that cannot reach the other nodes now."),
    Metric("smartlink_redis_full", "gauge", "Workers whose Redis has no room to write."),
    Metric("smartlink_redis_evicts", "gauge", "Workers whose Redis may evict keys."),
    Metric("smartlink_tasks_died", "gauge", "Background tasks that ended by a fault; each is in the log."),
    Metric("smartlink_nodes", "gauge", "Nodes alive, as this worker knows.", ("worker",)),
    Metric("smartlink_event_loop_lag_seconds", "gauge", "How late the loop was in the last second.", ("worker",)),
    Metric("smartlink_resident_memory_bytes", "gauge", "Resident memory.", ("worker",)),
    Metric("smartlink_open_descriptors", "gauge", "Open file descriptors.", ("worker",)),
)
