"""Builds and wires a realtime server."""

from __future__ import annotations

import asyncio
import importlib.metadata
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from smartlink.background import Background
from smartlink.prometheus import Samples
from smartlink.protocol.names import ChannelKind, kind_of
from smartlink.proxies import TrustedProxies
from smartlink.server.apps.base import App, AppManager, AppsInvalid, WebhookTarget
from smartlink.server.apps.description import policies_from_json
from smartlink.server.apps.file import FileApps
from smartlink.server.apps.static import StaticApps
from smartlink.server.core.client import ClientConnection, ClientSettings
from smartlink.server.core.fanout import FanOut, Subscriber
from smartlink.server.core.health import Health
from smartlink.server.core.hub import Hub
from smartlink.server.core.node import Node
from smartlink.server.net.capacity import Capacity
from smartlink.server.net.link import Handler, Link, Poller
from smartlink.server.net.tap import Tap
from smartlink.server.observe.access import Access
from smartlink.server.observe.agent import Agent
from smartlink.server.observe.api import OperatorApi
from smartlink.server.observe.endpoint import ObserveEndpoint
from smartlink.server.observe.gateway import MachineGateway
from smartlink.server.observe.operators import Operators
from smartlink.server.observe.questions import Questions
from smartlink.server.observe.samples import Observer, webhook_backlog, webhook_samples
from smartlink.server.observe.webhook_desk import WebhookDesk
from smartlink.server.run.engines import Engines, engines_for, memory_stores, uses_redis, webhook_queue_for
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.runtime.eager import EagerTasks
from smartlink.server.runtime.limits import AddressCount, AddressRate
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.runtime.rates import MachineOverview, ProcessOverview, RateSampler
from smartlink.server.runtime.sweeper import Sweeper
from smartlink.server.settings.config import MIN_SECRET_LENGTH, ServerSettings, is_safe_secret
from smartlink.server.transports.fallback.endpoint import Fallback
from smartlink.server.transports.fallback.sessions import Sessions
from smartlink.server.transports.http.connection import HttpConnection, HttpSettings
from smartlink.server.transports.http.router import Router
from smartlink.server.transports.http.status import StatusEndpoint
from smartlink.server.transports.ws.upgrade import Upgrader
from smartlink.server.webhooks.base import OutgoingEvent, WebhookSink
from smartlink.server.webhooks.delivery import Webhooks, WebhookTimes
from smartlink.server.webhooks.guard import Guard
from smartlink.server.webhooks.post import Poster
from smartlink.server.webhooks.queue import QueueUnavailable
from smartlink.server.workers.hub import WorkerHub
from smartlink.server.workers.single import SingleBroker, SinglePresence, SingleSessions

if TYPE_CHECKING:
    from smartlink.server.transports.ingest import RedisIngest

__all__ = [
    "Parent",
    "app_from",
    "apps_for",
    "build",
    "endpoint_for",
    "guard_for",
    "operators_for",
    "parent_for",
    "webhooks_for",
]


def app_from(settings: ServerSettings) -> App:
    """The application described by the environment. Raises AppsInvalid."""
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
        max_channel_length=settings.reverb_app_max_channel_name_length,
        max_event_name_length=settings.reverb_app_max_event_name_length,
        ping_interval_s=settings.reverb_app_ping_interval,
        activity_timeout_s=settings.reverb_app_activity_timeout,
        accepts_client_events=settings.reverb_app_accept_client_events_from != "none",
        accepts_public_client_events=settings.reverb_app_accept_client_events_from == "all",
        client_events_per_s=settings.reverb_app_client_events_per_second,
        presence_joins_per_s=settings.reverb_app_presence_joins_per_second,
        max_channels=settings.reverb_app_max_channels,
        message_rate=rate,
        ends_on_rate_limit=settings.reverb_app_rate_limit_terminate,
        allowed_origins=settings.reverb_app_allowed_origins,
        max_connections_per_user=settings.reverb_app_max_connections_per_user,
        authorization_timeout_s=settings.reverb_app_authorization_timeout,
        max_presence_members=settings.reverb_app_max_presence_members,
        max_user_info_bytes=settings.reverb_app_max_user_info_size,
        max_event_channels=settings.reverb_app_max_event_channels,
        max_batch=settings.reverb_app_max_batch,
        publishes_per_s=settings.reverb_app_publishes_per_second,
        reads_per_s=settings.reverb_app_reads_per_second,
        cors_origins=settings.reverb_app_cors_origins,
        lists_counts=settings.reverb_app_list_counts,
        sends_subscription_counts=settings.reverb_app_subscription_counts,
        cache_ttl_s=settings.reverb_app_cache_ttl,
        channels=policies_from_json(settings.reverb_app_channels),
    )


def apps_for(settings: ServerSettings, background: Background | None = None) -> AppManager:
    """The app manager that `settings` select, not started. Raises AppsInvalid.

    `REVERB_WEBHOOK_URL` is added to the app `REVERB_APP_ID`, however that app is defined.
    """
    filters = (settings.reverb_webhook_events, settings.reverb_webhook_channel_prefixes)

    def prepare(app: App) -> App:
        if not is_safe_secret(app.secret, settings.reverb_server_host):
            raise AppsInvalid(
                f"app {app.id!r}: its secret is a sample value or shorter than {MIN_SECRET_LENGTH} characters, and "
                f"REVERB_SERVER_HOST={settings.reverb_server_host} accepts connections from other machines"
            )
        url = settings.reverb_webhook_url
        if app.id != settings.reverb_app_id or url is None or any(hook.url == url for hook in app.webhooks):
            return app
        return replace(app, webhooks=(*app.webhooks, WebhookTarget(url, *filters)))

    if settings.reverb_apps_file is not None:
        return FileApps(settings.reverb_apps_file, prepare, background=background)
    if settings.reverb_apps_database_url is not None:
        try:
            from smartlink.server.apps.database import DatabaseApps
        except ImportError:
            raise AppsInvalid(
                "REVERB_APPS_DATABASE_URL needs extra packages: pip install 'smartlink-realtime[server,apps-sql]'"
            ) from None
        return DatabaseApps(settings.reverb_apps_database_url, prepare, settings.reverb_apps_poll_seconds, background)
    return StaticApps([app_from(settings)], prepare)


def _version() -> str:
    try:
        return importlib.metadata.version("smartlink-realtime")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def guard_for(settings: ServerSettings) -> Guard:
    """Decides which addresses webhooks may be sent to."""
    return Guard(
        allow_private=settings.reverb_webhook_allow_private,
        allow_plain=settings.reverb_webhook_allow_http,
        inside=settings.reverb_webhook_allowed_hosts,
    )


def webhooks_for(
    settings: ServerSettings, apps: AppManager, engines: Engines, metrics: Metrics, background: Background | None = None
) -> Webhooks:
    """The webhook sender, which reads occupants from the presence store."""
    presence = engines.presence

    async def occupants(app_id: str, channel: str) -> frozenset[str] | None:
        users = await on_channel(app_id, channel)
        if not engines.broker.is_available:
            raise QueueUnavailable("Other nodes are unreachable: their subscribers are unknown")
        return users

    async def on_channel(app_id: str, channel: str) -> frozenset[str] | None:
        if not (await presence.count(app_id, channel)).subscriptions:
            return None
        if kind_of(channel) is not ChannelKind.PRESENCE:
            return frozenset()
        return frozenset(member.user_id for member in await presence.members(app_id, channel))

    return Webhooks(
        apps=apps,
        queue=webhook_queue_for(settings, engines.redis),
        poster=Poster(guard_for(settings), settings.reverb_webhook_timeout),
        occupants=occupants,
        metrics=metrics,
        background=background,
        times=WebhookTimes(
            grace_s=settings.reverb_webhook_grace,
            restart_grace_s=settings.reverb_webhook_restart_grace,
            cache_miss_s=settings.reverb_webhook_cache_miss_seconds,
            retry_s=settings.reverb_webhook_retry_seconds,
        ),
    )


@dataclass(frozen=True, slots=True)
class Parent:
    """What the workers of one machine share. Held by their parent, or by the only process."""

    worker_hub: WorkerHub
    engines: Engines
    """For a node in this process."""
    webhooks: Webhooks
    apps: AppManager
    metrics: Metrics
    """Counters of webhook outcomes."""
    background: Background
    delivers_webhooks: bool
    """With Redis, each worker is a node of its own and delivers its own webhooks."""

    async def start(self) -> None:
        """Load the apps and start delivering webhooks. Raises AppsInvalid, QueueUnavailable."""
        await self.apps.start(lambda changes: None)
        await self.webhooks.start()

    async def stop(self) -> None:
        await self.webhooks.stop()
        await self.apps.stop()


def parent_for(settings: ServerSettings) -> Parent:
    """The worker hub and the webhook sender of a machine."""
    background = Background()
    apps, presence, metrics = apps_for(settings, background), SinglePresence(), Metrics()

    def emit(app_id: str, event: OutgoingEvent) -> None:
        app = apps.by_id(app_id)
        if app is not None:
            webhooks.emit(app, event)

    log, history, idempotency, sessions = memory_stores(settings)
    worker_hub = WorkerHub(
        presence=presence, history=history, idempotency=idempotency, sessions=sessions, log=log, emit=emit
    )
    presence.use(worker_hub)
    own_sessions = SingleSessions(worker_hub, sessions)
    engines = Engines(SingleBroker(worker_hub, presence), presence, history, idempotency, own_sessions)
    webhooks = webhooks_for(settings, apps, engines, metrics, background)
    worker_hub.own_figures = lambda: (
        webhook_samples(metrics)
        | (webhook_backlog(webhooks) if delivers else {})
        | {"smartlink_tasks_died": len(background.died)}
    )
    delivers = not uses_redis(settings)
    return Parent(worker_hub, engines, webhooks, apps, metrics, background, delivers)


def _ingest_for(settings: ServerSettings, apps: AppManager, node: Node, background: Background) -> RedisIngest:
    from smartlink.server.transports.ingest import RedisIngest

    return RedisIngest(settings, apps, node, background)


def endpoint_for(
    settings: ServerSettings, server_port: Callable[[], int], samples: Callable[[], Samples], operators: Operators
) -> ObserveEndpoint:
    """The operators' endpoint, not started. It has no port when metrics are disabled."""
    host = settings.reverb_metrics_host if settings.reverb_metrics_enabled else None
    access = Access(settings.reverb_metrics_host, settings.operator_token, settings.operator_app_tokens)
    api = OperatorApi(operators, access, _version())
    return ObserveEndpoint(host, settings.reverb_metrics_port, server_port, samples, api)


def operators_for(parent: Parent, samples: Callable[[], Samples], local: Callable[[], Agent | None]) -> Operators:
    """What operators may ask a machine; `local` is the agent of its only process, if it has one."""
    gateway = MachineGateway(parent.worker_hub, local)
    if not parent.delivers_webhooks:
        return Operators(gateway, samples, background=parent.background)
    desk = WebhookDesk(parent.webhooks)
    return Operators(gateway, samples, own_feed=parent.webhooks.feed, webhooks=desk, background=parent.background)


def build(
    settings: ServerSettings,
    apps: AppManager | None = None,
    engines: Engines | None = None,
    *,
    webhooks: WebhookSink | None = None,
    overview: MachineOverview | None = None,
    show_frames: Callable[[str], None] | None = None,
    descriptors: int | None = None,
) -> RealtimeServer:
    """Build the server that `settings` describe, not started. Call within the loop it will run on.

    Arguments passed in stay the caller's: the caller starts and stops `webhooks`. `show_frames` receives a line per
    frame sent or received. `descriptors` is the server's share of the process limit, when it is not alone in the
    process.
    """
    loop = asyncio.get_running_loop()
    metrics, hub = Metrics(), Hub()
    engines = engines or engines_for(settings, metrics)
    background = Background() if engines.redis is None else engines.redis.background
    apps, sweeper = apps or apps_for(settings, background), Sweeper(background=background)
    rates = RateSampler(metrics, hub)
    descriptors = descriptors or resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    capacity = Capacity(descriptors, settings.reverb_server_max_http_connections)
    tasks = EagerTasks(metrics)
    pollers: list[Poller] = []

    def by_descriptor(descriptor: int) -> Subscriber | None:
        link = pollers[0].links.get(descriptor)
        handler = None if link is None else link.handler
        return handler if isinstance(handler, ClientConnection) else None

    def make_poller() -> Poller:
        pollers[:] = [Poller(loop)]
        return pollers[0]

    own_webhooks = None
    if webhooks is None:
        webhooks = own_webhooks = webhooks_for(settings, apps, engines, metrics, background)
    node = Node(
        hub=hub,
        fanout=FanOut(loop.call_soon, loop.call_later, by_descriptor, metrics),
        broker=engines.broker,
        presence=engines.presence,
        history=engines.history,
        idempotency=engines.idempotency,
        sessions=engines.sessions,
        session_ttl_s=settings.reverb_server_session_ttl,
        apps=apps,
        webhooks=webhooks,
        tasks=tasks,
        metrics=metrics,
    )
    if own_webhooks is not None:
        own_webhooks.feed = node.feed
    health = Health(lambda: node.is_connected, background, engines.redis)
    observer = Observer(
        node, hub, metrics, lambda: server.is_ready, health, apps, own_webhooks, lambda: server.certificate
    )
    rates.more = observer.samples
    health.certificate_ends_at = lambda: None if server.certificate is None else server.certificate.ends_at
    if isinstance(webhooks, Webhooks):
        sender = webhooks
        health.is_webhook_queue_away = lambda: sender.is_away
    node.has_descriptors = lambda: capacity.has_room_for_client
    status = StatusEndpoint(overview or ProcessOverview(rates), _version(), uses_redis(settings), health)
    addresses = AddressCount(settings.reverb_server_connections_per_address)
    sockets = ClientSettings(node, sweeper, settings.reverb_server_max_backlog_bytes, addresses=addresses)
    router = Router(node, apps, lambda: server.is_ready, status)
    rate = settings.reverb_server_connects_per_second
    address_rate = AddressRate(rate) if rate else None
    http = HttpSettings(
        router=router,
        tasks=tasks,
        sweeper=sweeper,
        upgrade=Upgrader(apps, sockets, lambda: server.is_ready, lambda: server.is_replaced, address_rate),
        fallback=Fallback(apps, Sessions(sockets, lambda: server.is_ready, address_rate), node),
        path_prefix=settings.reverb_server_path,
        max_body_bytes=settings.reverb_max_request_size,
        proxies=TrustedProxies(settings.reverb_server_trusted_proxies),
        is_ready=lambda: server.is_ready,
        pace=sockets.pace,
        evictable=capacity.evictable,
    )

    def handler(link: Link) -> Handler:
        if show_frames is None:
            return HttpConnection(link, http)
        tap = Tap(link, show_frames)
        tap.handler = HttpConnection(tap, http)
        return tap

    def retire() -> int:
        for connection in tuple(http.open):
            connection.retire()
        return len(http.open)

    questions = Questions(
        node,
        apps,
        rates=rates,
        health=health,
        sweeper=sweeper,
        is_ready=lambda: server.is_ready,
        version=_version(),
        webhooks=None if own_webhooks is None else WebhookDesk(own_webhooks),
    )
    server = RealtimeServer(
        settings,
        node=node,
        hub=hub,
        apps=apps,
        forget_rates=router.rates.forget,
        tasks=tasks,
        webhooks=own_webhooks,
        sweeper=sweeper,
        metrics=metrics,
        rates=rates,
        capacity=capacity,
        poller=make_poller,
        handler=handler,
        retire=retire,
        observer=observer,
        agent=Agent(node, questions),
        ingest=_ingest_for(settings, apps, node, background) if settings.reads_events_from_redis else None,
    )
    return server
