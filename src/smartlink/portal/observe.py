"""Metrics of the portal and its worker, on a port of their own."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smartlink.background import Background
from smartlink.broadcasting.outbox import Relay, read_status
from smartlink.portal.shared.db import Database, outbox_tables
from smartlink.portal.shared.errors import DatabaseAway
from smartlink.portal.shared.health import DatabaseHealth
from smartlink.prometheus import CONTENT_TYPE, Histogram, Metric, Samples, render, sample_name

__all__ = ["METRICS", "CountingMiddleware", "PortalObserver", "RequestCounts"]

METRICS = (
    Metric("smartlink_app_requests_total", "counter", "Requests by route and status class.", ("route", "status")),
    Metric("smartlink_app_request_seconds", "histogram", "How long requests took.", ("route", "le")),
    Metric("smartlink_app_errors_total", "counter", "Errors that requests ended with; each is in the log."),
    Metric("smartlink_app_tasks_died", "gauge", "Background tasks that crashed; each is in the log."),
    Metric("smartlink_database_up", "gauge", "Whether the database accepts writes."),
    Metric("smartlink_database_free_bytes", "gauge", "Free space on the disk of a SQLite database.", ("file",)),
    Metric("smartlink_outbox_waiting", "gauge", "Recorded events that wait to be sent.", ("queue",)),
    Metric("smartlink_outbox_oldest_seconds", "gauge", "Age of the oldest event that waits.", ("queue",)),
    Metric("smartlink_outbox_set_aside", "gauge", "Events that failed and wait for a person."),
    Metric("smartlink_outbox_workers", "gauge", "Workers that are alive."),
    Metric("smartlink_outbox_sent_total", "counter", "Events sent by this process."),
    Metric("smartlink_outbox_failed_total", "counter", "Events that this process set aside."),
    Metric("smartlink_outbox_lag_seconds", "histogram", "From the recording of an event until it was sent.", ("le",)),
    Metric("smartlink_app_cpu_seconds_total", "counter", "CPU time used by this process."),
)
"""docs/reference/metrics.md is checked against it."""

PATIENCE_S = 1.0
"""How long a scrape waits for the database: Prometheus gives up after ten seconds and then knows nothing at all."""
_OTHERS = "other"
_OWN_PATHS = frozenset({"/broadcasting/auth", "/broadcasting/user-auth", "/up"})


class RequestCounts:
    """Counts requests and their durations by route. Paths that are no route count as one."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._times: dict[str, Histogram] = {}

    def note(self, scope: Scope, status: int, took_s: float) -> None:
        """Count a request that was answered."""
        route = getattr(scope.get("route"), "path", None)
        if route is None:
            route = scope["path"] if scope["path"] in _OWN_PATHS else _OTHERS
        # Begins at 0, so that Prometheus sees the first one as an increase.
        self._counts.setdefault((route, "5xx"), 0)
        key = (route, f"{status // 100}xx")
        self._counts[key] = self._counts.get(key, 0) + 1
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = Histogram(Histogram.COARSE)
        times.observe(took_s)

    def samples(self) -> Samples:
        """What was counted so far."""
        found: Samples = {
            sample_name("smartlink_app_requests_total", route=route, status=status): count
            for (route, status), count in self._counts.items()
        }
        for route, times in self._times.items():
            found |= times.samples("smartlink_app_request_seconds", route=route)
        return found


class CountingMiddleware:
    """Counts each request when its response begins, streams included."""

    def __init__(self, app: ASGIApp, counts: RequestCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts.note(scope, message["status"], time.perf_counter() - began_at)
            await send(message)

        await self._app(scope, receive, counted)


class PortalObserver:
    """Collects the samples of a portal or worker process. The outbox and the database are looked at when asked."""

    def __init__(
        self,
        database: Database,
        health: DatabaseHealth,
        background: Background,
        counts: RequestCounts,
        errors: Callable[[], int],
    ) -> None:
        self.relay: Relay | None = None
        """The relay of this process, if it is a worker."""
        self._database = database
        self._health = health
        self._background = background
        self._counts = counts
        self._errors = errors
        self._checking: asyncio.Task[bool] | None = None
        self.app = Starlette(routes=[Route("/metrics", self._metrics), Route("/healthz", _is_alive)])

    async def samples(self) -> Samples:
        """All samples now. Without a database, those that need it are missing, and `smartlink_database_up` is 0."""
        used = os.times()
        found = self._counts.samples() | {
            "smartlink_app_errors_total": self._errors(),
            "smartlink_app_tasks_died": len(self._background.died),
            "smartlink_app_cpu_seconds_total": round(used.user + used.system, 2),
        }
        if self.relay is not None:
            found["smartlink_outbox_sent_total"] = self.relay.sent
            found["smartlink_outbox_failed_total"] = self.relay.failed
            found |= self.relay.lag.samples("smartlink_outbox_lag_seconds")
        if (file := self._database.file) is not None:
            free = shutil.disk_usage(Path(file).parent).free
            found[sample_name("smartlink_database_free_bytes", file=file)] = free
        is_up = await self._is_up()
        found["smartlink_database_up"] = int(is_up)
        return found | await self._outbox() if is_up else found

    async def _is_up(self) -> bool:
        """Whether the database accepts writes. One that keeps a scrape waiting counts as one that does not."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check())
        await asyncio.wait({self._checking}, timeout=PATIENCE_S)
        return self._checking.done() and self._checking.result()

    async def _check(self) -> bool:
        try:
            await self._health.check()
        except DatabaseAway:
            return False
        return True

    async def _outbox(self) -> Samples:
        try:
            async with asyncio.timeout(PATIENCE_S):
                status = await read_status(self._database.engine, outbox_tables)
        except (SQLAlchemyError, OSError, TimeoutError):
            return {}
        found: Samples = {
            "smartlink_outbox_set_aside": status.failed,
            "smartlink_outbox_workers": sum(worker.is_alive for worker in status.workers),
        }
        # Always: an alert about an age that is missing never ends.
        found[sample_name("smartlink_outbox_waiting", queue="default")] = 0
        found[sample_name("smartlink_outbox_oldest_seconds", queue="default")] = 0
        for queue in status.queues:
            found[sample_name("smartlink_outbox_waiting", queue=queue.name)] = queue.waiting
            found[sample_name("smartlink_outbox_oldest_seconds", queue=queue.name)] = queue.lag_s
        return found

    async def _metrics(self, _: Request) -> Response:
        return Response(render(METRICS, await self.samples()), headers={"Content-Type": CONTENT_TYPE})


async def _is_alive(_: Request) -> Response:
    return PlainTextResponse("OK\n")
