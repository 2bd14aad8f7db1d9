"""Builds and wires a realtime server: the only file that names engines."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from smartlink.protocol.names import ChannelKind, kind_of
from smartlink.server.apps.base import App, AppManager, Webhook
from smartlink.server.apps.static import StaticApps
from smartlink.server.brokers.base import Broker
from smartlink.server.brokers.memory import MemoryBroker
from smartlink.server.client import ClientConnection, ClientSettings
from smartlink.server.config import ServerSettings
from smartlink.server.eager import EagerTasks
from smartlink.server.fanout import FanOut, Subscriber
from smartlink.server.history.base import History
from smartlink.server.history.memory import MemoryHistory
from smartlink.server.http.connection import HttpConnection, HttpSettings
from smartlink.server.http.router import Router
from smartlink.server.hub import Hub
from smartlink.server.lifecycle import RealtimeServer
from smartlink.server.link import Poller
from smartlink.server.metrics import Metrics
from smartlink.server.node import Node
from smartlink.server.receipts.base import Receipts
from smartlink.server.receipts.memory import MemoryReceipts
from smartlink.server.roster.base import Roster
from smartlink.server.roster.memory import MemoryRoster
from smartlink.server.watch import Watch
from smartlink.server.webhooks.delivery import Webhooks, WebhookTimes
from smartlink.server.webhooks.guard import Guard
from smartlink.server.webhooks.memory import MemoryQueue
from smartlink.server.webhooks.post import Poster
from smartlink.server.webhooks.queue import QueueUnavailable, WebhookQueue
from smartlink.server.webhooks.sqlite import SqliteQueue
from smartlink.server.ws.upgrade import Upgrader

__all__ = ["Engines", "app_from", "build", "engines_for", "webhook_queue_for", "webhooks_for"]


def app_from(settings: ServerSettings) -> App:
    """The application that the environment describes."""
    rate = None
    if settings.reverb_app_rate_limiting_enabled:
        rate = (settings.reverb_app_rate_limit_max_attempts, settings.reverb_app_rate_limit_decay_seconds)
    webhooks: tuple[Webhook, ...] = ()
    if settings.reverb_webhook_url is not None:
        filters = (settings.reverb_webhook_events, settings.reverb_webhook_channel_prefixes)
        webhooks = (Webhook(settings.reverb_webhook_url, *filters),)
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
        webhooks=webhooks,
    )


@dataclass(frozen=True, slots=True)
class Engines:
    """What a node shares with the others, or keeps for itself when it is alone."""

    broker: Broker
    roster: Roster
    history: History
    receipts: Receipts


def engines_for(settings: ServerSettings) -> Engines:
    """The engines that `settings` ask for."""
    return Engines(MemoryBroker(), MemoryRoster(), MemoryHistory(), MemoryReceipts())


def webhook_queue_for(settings: ServerSettings) -> WebhookQueue:
    """The webhook queue that `settings` ask for, not yet started."""
    where = settings.reverb_webhook_queue
    if where == "memory":
        return MemoryQueue()
    if where == "redis":
        raise QueueUnavailable("not yet")
    return SqliteQueue(Path(where.removeprefix("sqlite:///")))


def webhooks_for(settings: ServerSettings, apps: AppManager, roster: Roster, metrics: Metrics) -> Webhooks:
    """What posts webhooks, asking `roster` who is there."""

    async def occupants(app_id: str, channel: str) -> frozenset[str] | None:
        if not (await roster.count(app_id, channel)).subscriptions:
            return None
        if kind_of(channel) is not ChannelKind.PRESENCE:
            return frozenset()
        return frozenset(member.user_id for member in await roster.members(app_id, channel))

    guard = Guard(
        allow_private=settings.reverb_webhook_allow_private,
        allow_plain=settings.reverb_webhook_allow_http,
        inside=settings.reverb_webhook_allowed_hosts,
    )
    return Webhooks(
        apps=apps,
        queue=webhook_queue_for(settings),
        poster=Poster(guard, settings.reverb_webhook_timeout),
        occupants=occupants,
        metrics=metrics,
        times=WebhookTimes(
            grace_s=settings.reverb_webhook_grace,
            restart_grace_s=settings.reverb_webhook_restart_grace,
            cache_miss_s=settings.reverb_webhook_cache_miss_seconds,
            retry_s=settings.reverb_webhook_retry_seconds,
        ),
    )


def build(settings: ServerSettings, apps: AppManager | None = None, engines: Engines | None = None) -> RealtimeServer:
    """A server as `settings` describe it, not yet started. Call within the loop it is to run on."""
    loop = asyncio.get_running_loop()
    engines = engines or engines_for(settings)
    apps = apps or StaticApps([app_from(settings)])
    metrics, hub, watch = Metrics(), Hub(), Watch()
    tasks = EagerTasks(metrics)
    pollers: list[Poller] = []

    def by_descriptor(descriptor: int) -> Subscriber | None:
        link = pollers[0].links.get(descriptor)
        handler = None if link is None else link.handler
        return handler if isinstance(handler, ClientConnection) else None

    def make_poller() -> Poller:
        pollers[:] = [Poller(loop)]
        return pollers[0]

    webhooks = webhooks_for(settings, apps, engines.roster, metrics)
    node = Node(
        hub=hub,
        fanout=FanOut(loop.call_soon, by_descriptor, metrics),
        broker=engines.broker,
        roster=engines.roster,
        history=engines.history,
        receipts=engines.receipts,
        apps=apps,
        webhooks=webhooks,
        tasks=tasks,
        metrics=metrics,
    )
    sockets = ClientSettings(node, watch, settings.reverb_server_max_backlog_bytes)
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
