"""The samples of one process: its counters, and gauges read at the source."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

from smartlink.prometheus import Samples, sample_name
from smartlink.server.apps.base import AppManager
from smartlink.server.core.health import Health
from smartlink.server.core.hub import Hub
from smartlink.server.core.node import Node
from smartlink.server.net.tls import Certificate
from smartlink.server.runtime.metrics import WEBHOOK_SAMPLES, Metrics
from smartlink.server.webhooks.delivery import Webhooks

__all__ = ["Observer", "webhook_backlog", "webhook_samples"]

NODES_EVERY_S = 5.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def webhook_samples(metrics: Metrics) -> Samples:
    """Counters of webhook outcomes, reported by the process that delivers them."""
    return {
        WEBHOOK_SAMPLES["sent"]: metrics.webhooks_sent,
        WEBHOOK_SAMPLES["retried"]: metrics.webhooks_retried,
        WEBHOOK_SAMPLES["failed"]: metrics.webhooks_failed,
        WEBHOOK_SAMPLES["dropped"]: metrics.webhooks_dropped,
    }


def webhook_backlog(webhooks: Webhooks) -> Samples:
    """What waits to be posted by this process."""
    worker = str(os.getpid())
    return {
        sample_name("smartlink_webhook_oldest_seconds", worker=worker): round(webhooks.oldest_s(), 3),
        "smartlink_webhook_queue_away": int(webhooks.is_away),
    }


class Observer:
    """Collects the samples of this process. Swept once a second."""

    def __init__(
        self,
        node: Node,
        hub: Hub,
        metrics: Metrics,
        is_ready: Callable[[], bool],
        health: Health,
        apps: AppManager,
        webhooks: Webhooks | None,
        certificate: Callable[[], Certificate | None],
    ) -> None:
        """`webhooks` is given if this process delivers them."""
        self._node = node
        self._hub = hub
        self._metrics = metrics
        self._is_ready = is_ready
        self._health = health
        self._apps = apps
        self._webhooks = webhooks
        self._certificate = certificate
        self._nodes = 1
        self._asked_at = 0.0

    def sweep(self, now: float) -> None:
        if now - self._asked_at >= NODES_EVERY_S:
            self._asked_at = now
            self._node.tasks.run(self._node.presence.nodes(), self._count_nodes)

    def samples(self) -> Samples:
        return self._counted() | self._by_app() | self._of_process()

    def _count_nodes(self, nodes: int) -> None:
        self._nodes = nodes

    def _counted(self) -> Samples:
        metrics = self._metrics
        samples: Samples = {
            "smartlink_client_events_total": metrics.client_events,
            "smartlink_deliveries_total": metrics.deliveries,
            "smartlink_sent_bytes_total": metrics.bytes_sent,
            "smartlink_live_dropped_total": metrics.live_dropped,
            "smartlink_conflated_total": metrics.conflated,
            "smartlink_slow_consumers_total": metrics.slow_consumers,
            "smartlink_sessions": len(self._node.resumption),
            "smartlink_sessions_resumed_total": metrics.sessions_resumed,
            "smartlink_replayed_total": metrics.frames_replayed,
            "smartlink_barriers_total": metrics.barriers,
            "smartlink_bus_messages_dropped_total": metrics.bus_messages_dropped,
            "smartlink_ingested_total": metrics.ingested,
            "smartlink_ingest_dropped_total": metrics.ingest_dropped,
            "smartlink_internal_errors_total": metrics.internal_errors,
        }
        labelled = (
            ("smartlink_connections_refused_total", "reason", metrics.refusals),
            ("smartlink_http_requests_total", "status", metrics.http_statuses),
            ("smartlink_sessions_failed_total", "reason", metrics.sessions_failed),
        )
        for name, label, values in labelled:
            samples |= {sample_name(name, **{label: key}): value for key, value in values.items()}
        samples |= webhook_samples(metrics)
        if self._webhooks is not None:
            samples |= webhook_backlog(self._webhooks)
        samples |= metrics.fanout.samples("smartlink_fanout_seconds")
        samples |= metrics.publish.samples("smartlink_publish_seconds")
        samples |= metrics.delivery.samples("smartlink_delivery_seconds")
        samples |= metrics.redis.samples("smartlink_redis_seconds")
        samples |= metrics.confirm.samples("smartlink_confirm_seconds")
        return samples

    def _by_app(self) -> Samples:
        samples: Samples = {}
        worker = str(os.getpid())
        for app_id, app in self._metrics.apps.items():
            tenant = self._hub.tenant(app_id)
            values = {
                "smartlink_connections": self._hub.count(app_id),
                "smartlink_connections_opened_total": app.connections_opened,
                "smartlink_connections_closed_total": app.connections_closed,
                "smartlink_subscriptions": tenant.subscriptions,
                "smartlink_messages_received_total": app.messages_received,
                "smartlink_received_bytes_total": app.bytes_received,
                "smartlink_backlogged_connections": app.behind,
                "smartlink_publications_total": app.publications,
                "smartlink_http_calls_total": app.http_calls,
                "smartlink_http_received_bytes_total": app.http_bytes_received,
                "smartlink_http_sent_bytes_total": app.http_bytes_sent,
            }
            samples |= {sample_name(name, app_id=app_id): value for name, value in values.items()}
            samples[sample_name("smartlink_channels", app_id=app_id, worker=worker)] = len(tenant.channels)
            for kind, count in app.limited.items():
                samples[sample_name("smartlink_rate_limited_total", app_id=app_id, kind=kind)] = count
            for status, count in app.http_errors.items():
                samples[sample_name("smartlink_http_errors_total", app_id=app_id, status=status)] = count
            if app.http:
                samples |= app.http.samples("smartlink_http_seconds", app_id=app_id)
            if (known := self._apps.by_id(app_id)) is not None:
                limit = sample_name("smartlink_connections_limit", app_id=app_id, worker=worker)
                samples[limit] = known.max_connections
        return samples

    def _of_process(self) -> Samples:
        worker = str(os.getpid())
        values: dict[str, float] = {
            "smartlink_nodes": self._nodes,
            "smartlink_event_loop_lag_seconds": self._metrics.loop_lag_s,
            "smartlink_resident_memory_bytes": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES,
            "smartlink_descriptors_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "smartlink_open_descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 — names alone
        }
        certificate = self._certificate()
        if certificate is not None:
            values["smartlink_certificate_ends_timestamp_seconds"] = certificate.ends_at
        used = os.times()
        return {sample_name(name, worker=worker): value for name, value in values.items()} | {
            "smartlink_cpu_seconds_total": round(used.user + used.system, 2),
            "smartlink_workers_ready": int(self._is_ready()),
            "smartlink_workers_apart": int(not self._node.is_connected),
            "smartlink_redis_full": int(self._health.redis == "full"),
            "smartlink_redis_evicts": int(self._health.evicts),
            "smartlink_tasks_died": len(self._health.background.died),
        }
