"""Builds and wires a realtime server: the only file that names engines."""

from __future__ import annotations

import asyncio

from smartlink.server.apps.base import App, AppManager
from smartlink.server.apps.static import StaticApps
from smartlink.server.brokers.memory import MemoryBroker
from smartlink.server.config import ServerSettings
from smartlink.server.eager import EagerTasks
from smartlink.server.fanout import FanOut, Subscriber
from smartlink.server.http.connection import HttpConnection, HttpSettings
from smartlink.server.http.router import Router
from smartlink.server.hub import Hub
from smartlink.server.lifecycle import RealtimeServer
from smartlink.server.link import Poller
from smartlink.server.metrics import Metrics
from smartlink.server.node import Node
from smartlink.server.roster.memory import MemoryRoster
from smartlink.server.watch import Watch
from smartlink.server.webhooks import Webhooks
from smartlink.server.ws.connection import WebSocket, WebSocketSettings
from smartlink.server.ws.upgrade import Upgrader

__all__ = ["app_from", "build"]


def app_from(settings: ServerSettings) -> App:
    """The application that the environment describes."""
    rate = None
    if settings.reverb_app_rate_limiting_enabled:
        rate = (settings.reverb_app_rate_limit_max_attempts, settings.reverb_app_rate_limit_decay_seconds)
    return App(
        id=settings.reverb_app_id,
        key=settings.reverb_app_key,
        secret=settings.reverb_app_secret,
        max_connections=settings.reverb_app_max_connections,
        max_message_bytes=settings.reverb_app_max_message_size,
        max_event_bytes=settings.reverb_app_max_event_size,
        ping_interval_s=settings.reverb_app_ping_interval,
        activity_timeout_s=settings.reverb_app_activity_timeout,
        accepts_client_events=settings.reverb_app_accept_client_events_from != "none",
        client_events_per_s=settings.reverb_app_client_events_per_second,
        max_channels=settings.reverb_app_max_channels,
        message_rate=rate,
        ends_on_rate_limit=settings.reverb_app_rate_limit_terminate,
        allowed_origins=settings.reverb_app_allowed_origins,
        webhook_url=settings.reverb_webhook_url,
    )


def build(settings: ServerSettings, apps: AppManager | None = None) -> RealtimeServer:
    """A server as `settings` describe it, not yet started. Call within the loop it is to run on."""
    loop = asyncio.get_running_loop()
    apps = apps or StaticApps([app_from(settings)])
    metrics, hub, watch = Metrics(), Hub(), Watch()
    tasks = EagerTasks(metrics)
    pollers: list[Poller] = []

    def by_descriptor(descriptor: int) -> Subscriber | None:
        link = pollers[0].links.get(descriptor)
        handler = None if link is None else link.handler
        return handler if isinstance(handler, WebSocket) else None

    def make_poller() -> Poller:
        pollers[:] = [Poller(loop)]
        return pollers[0]

    webhooks = Webhooks(metrics, settings.reverb_webhook_grace)
    node = Node(
        hub=hub,
        fanout=FanOut(loop.call_soon, by_descriptor, metrics),
        broker=MemoryBroker(),
        roster=MemoryRoster(),
        webhooks=webhooks,
        tasks=tasks,
        metrics=metrics,
    )
    sockets = WebSocketSettings(node, watch, settings.reverb_server_max_backlog_bytes)
    http = HttpSettings(
        router=Router(node, apps, lambda: server.is_ready),
        tasks=tasks,
        watch=watch,
        upgrade=Upgrader(apps, sockets, lambda: server.is_ready),
        path_prefix=settings.reverb_server_path,
        max_body_bytes=settings.reverb_max_request_size,
    )
    server = RealtimeServer(
        settings,
        node=node,
        hub=hub,
        tasks=tasks,
        webhooks=webhooks,
        watch=watch,
        metrics=metrics,
        poller=make_poller,
        handler=lambda link: HttpConnection(link, http),
    )
    return server
