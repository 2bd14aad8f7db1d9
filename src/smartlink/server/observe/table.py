"""Every metric: name, kind, labels and meaning. docs/reference/metrics.md is checked against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "Metric"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `soketi` is an alias under which it is also exported, with the port as a label."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    soketi: str | None = None


METRICS = (
    Metric("smartlink_connections", "gauge", "Open connections.", ("app_id",), "soketi_connected"),
    Metric(
        "smartlink_connections_opened_total",
        "counter",
        "Connections established.",
        ("app_id",),
        "soketi_new_connections_total",
    ),
    Metric(
        "smartlink_connections_closed_total",
        "counter",
        "Connections closed.",
        ("app_id",),
        "soketi_new_disconnections_total",
    ),
    Metric("smartlink_connections_refused_total", "counter", "Connections refused.", ("reason",)),
    Metric(
        "smartlink_connections_limit",
        "gauge",
        "Connections that the application may have, over all workers.",
        ("app_id", "worker"),
    ),
    Metric("smartlink_backlogged_connections", "gauge", "Connections that read too slowly now.", ("app_id",)),
    Metric("smartlink_subscriptions", "gauge", "Current subscriptions: connections times their channels.", ("app_id",)),
    Metric("smartlink_channels", "gauge", "Channels with subscribers on this worker.", ("app_id", "worker")),
    Metric(
        "smartlink_messages_received_total",
        "counter",
        "Messages received from clients.",
        ("app_id",),
        "soketi_ws_messages_received_total",
    ),
    Metric(
        "smartlink_received_bytes_total",
        "counter",
        "Size of these messages in bytes.",
        ("app_id",),
        "soketi_socket_received_bytes",
    ),
    Metric("smartlink_client_events_total", "counter", "Client events relayed."),
    Metric("smartlink_publications_total", "counter", "Events published: by the HTTP API and by clients.", ("app_id",)),
    Metric(
        "smartlink_deliveries_total",
        "counter",
        "Messages delivered: each event times its subscribers.",
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
    Metric("smartlink_live_dropped_total", "counter", "Live events skipped for clients with a backlog."),
    Metric("smartlink_conflated_total", "counter", "Events that a later one replaced before they were sent."),
    Metric("smartlink_sessions", "gauge", "Connected clients that can resume."),
    Metric("smartlink_sessions_resumed_total", "counter", "Channels on which a client got everything that it missed."),
    Metric(
        "smartlink_sessions_failed_total",
        "counter",
        "Channels on which a client was told that it may have missed something.",
        ("reason",),
    ),
    Metric("smartlink_replayed_total", "counter", "Events sent again to clients that came back."),
    Metric("smartlink_barriers_total", "counter", "Pings that asked clients how far they are."),
    Metric(
        "smartlink_confirm_seconds",
        "histogram",
        "From such a ping until the client confirmed what came before.",
        ("le",),
    ),
    Metric("smartlink_slow_consumers_total", "counter", "Connections closed because they read too slowly."),
    Metric(
        "smartlink_rate_limited_total",
        "counter",
        "Messages, client events and HTTP calls over a limit.",
        ("app_id", "kind"),
    ),
    Metric(
        "smartlink_fanout_seconds",
        "histogram",
        "From the first event of a batch until it is written to all.",
        ("le",),
    ),
    Metric(
        "smartlink_delivery_seconds",
        "histogram",
        "From a publication, on any node, until it is written to all subscribers here; per batch, of its first event.",
        ("le",),
    ),
    Metric("smartlink_redis_seconds", "histogram", "Round trips of commands to Redis.", ("le",)),
    Metric("smartlink_publish_seconds", "histogram", "From a publication until the broker accepts it.", ("le",)),
    Metric("smartlink_http_requests_total", "counter", "HTTP API calls by status class.", ("status",)),
    Metric(
        "smartlink_http_calls_total",
        "counter",
        "Signed HTTP API calls.",
        ("app_id",),
        "soketi_http_calls_received_total",
    ),
    Metric(
        "smartlink_http_errors_total",
        "counter",
        "HTTP API calls of the application that failed, by status class.",
        ("app_id", "status"),
    ),
    Metric("smartlink_http_seconds", "histogram", "How long signed HTTP API calls took.", ("app_id", "le")),
    Metric(
        "smartlink_http_received_bytes_total",
        "counter",
        "Bytes of their request bodies.",
        ("app_id",),
        "soketi_http_received_bytes",
    ),
    Metric(
        "smartlink_http_sent_bytes_total",
        "counter",
        "Bytes of their responses.",
        ("app_id",),
        "soketi_http_transmitted_bytes",
    ),
    Metric(
        "smartlink_webhook_events_total",
        "counter",
        "Webhook events by outcome: sent, retried, failed, dropped.",
        ("outcome",),
    ),
    Metric(
        "smartlink_webhook_oldest_seconds",
        "gauge",
        "Age of the oldest webhook event that is buffered or was not accepted yet.",
        ("worker",),
    ),
    Metric("smartlink_webhook_queue_away", "gauge", "Processes whose webhook queue is unavailable."),
    Metric("smartlink_bus_messages_dropped_total", "counter", "Invalid messages on the Redis bus."),
    Metric("smartlink_ingested_total", "counter", "Events that applications published to Redis."),
    Metric("smartlink_ingest_dropped_total", "counter", "Such events that could not be delivered."),
    Metric("smartlink_internal_errors_total", "counter", "Internal errors; each is in the log."),
    Metric("smartlink_workers_ready", "gauge", "Workers that accept connections."),
    Metric("smartlink_workers_apart", "gauge", "Workers that cannot reach the other nodes."),
    Metric("smartlink_redis_full", "gauge", "Workers whose Redis is out of memory."),
    Metric("smartlink_redis_evicts", "gauge", "Workers whose Redis may evict keys."),
    Metric("smartlink_tasks_died", "gauge", "Background tasks that crashed; each is in the log."),
    Metric("smartlink_nodes", "gauge", "Live nodes known to this worker.", ("worker",)),
    Metric("smartlink_event_loop_lag_seconds", "gauge", "Event loop lag over the last second.", ("worker",)),
    Metric("smartlink_resident_memory_bytes", "gauge", "Resident memory.", ("worker",)),
    Metric("smartlink_open_descriptors", "gauge", "Open file descriptors.", ("worker",)),
    Metric("smartlink_descriptors_limit", "gauge", "File descriptors that the worker may open.", ("worker",)),
    Metric("smartlink_cpu_seconds_total", "counter", "CPU time used by workers."),
    Metric(
        "smartlink_certificate_ends_timestamp_seconds",
        "gauge",
        "When the certificate in use ends, in seconds since 1970.",
        ("worker",),
    ),
)
