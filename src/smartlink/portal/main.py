"""Assembles the portal: an ASGI app from its features, and background work."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from redis.asyncio.connection import parse_url
from sqlalchemy import or_, select, text
from starlette.routing import Route

from smartlink.background import Background, ended
from smartlink.broadcasting import (
    BroadcastConfigError,
    Broadcaster,
    ChannelAuthorizer,
    ChannelRules,
    SocketIdMiddleware,
)
from smartlink.broadcasting.manager import DriverManager
from smartlink.broadcasting.outbox import Relay, Schedule
from smartlink.portal import asyncapi, openapi, pages
from smartlink.portal.admin import routes as admin_routes
from smartlink.portal.admin.console import Console
from smartlink.portal.admin.figures import FigureBoard
from smartlink.portal.admin.service import Admin, admin_channels
from smartlink.portal.campaigns import channels as campaign_channels
from smartlink.portal.campaigns import routes as campaign_routes
from smartlink.portal.campaigns.service import Campaigns
from smartlink.portal.chat import channels as chat_channels
from smartlink.portal.chat import gaps
from smartlink.portal.chat import routes as chat_routes
from smartlink.portal.chat.changes import Changes
from smartlink.portal.chat.delivery import Deliveries
from smartlink.portal.chat.service import Chat
from smartlink.portal.chat.typists import MemoryTypists, RedisTypists
from smartlink.portal.finance import routes as finance_routes
from smartlink.portal.finance.service import Finance
from smartlink.portal.notifications import routes as notification_routes
from smartlink.portal.notifications.service import Notifications
from smartlink.portal.observe import CountingMiddleware, PortalObserver, RequestCounts
from smartlink.portal.presence import channels as presence_channels
from smartlink.portal.presence import routes as presence_routes
from smartlink.portal.presence.service import Presence
from smartlink.portal.presence.sweep import Sweep
from smartlink.portal.shared import background, idempotency
from smartlink.portal.shared.background import WorkerOptions
from smartlink.portal.shared.db import Database, outbox_tables
from smartlink.portal.shared.error_responses import handle_errors
from smartlink.portal.shared.health import DatabaseHealth
from smartlink.portal.shared.limits import MemoryCounter, RateLimits, RedisCounter
from smartlink.portal.shared.passwords import Passwords
from smartlink.portal.shared.realtime import RealtimeApi
from smartlink.portal.shared.redis import SharedRedis, redis_url
from smartlink.portal.shared.routing import operation_id
from smartlink.portal.shared.schemas import RealtimeEndpoint, Up
from smartlink.portal.shared.settings import PortalSettings
from smartlink.portal.shared.unit_of_work import Announcer
from smartlink.portal.users import channels as user_channels
from smartlink.portal.users import routes as user_routes
from smartlink.portal.users.channel_revocations import ChannelRevocations
from smartlink.portal.users.endings import Endings
from smartlink.portal.users.identity import Identity
from smartlink.portal.users.principals import Principals
from smartlink.portal.users.service import Users
from smartlink.portal.users.signing import Signing
from smartlink.proxies import TrustedProxies

__all__ = ["Portal", "build", "channel_rules", "check_broadcasting"]

SWEEP_EVERY_S = 60.0
END_EVERY_S = 5.0
PRUNE_EVERY_S = 3600.0
SAMPLE_EVERY_S = 30.0


class Portal:
    """The portal: `app` serves HTTP, `work` relays events and runs jobs. Call `start` before both, `stop` after."""

    def __init__(
        self, settings: PortalSettings, *, broadcaster: Broadcaster | None = None, passwords: Passwords | None = None
    ) -> None:
        self.settings = settings
        self.database = Database(settings.url)
        self._drivers = DriverManager(settings.broadcast)
        own = settings.broadcast
        self.broadcaster = broadcaster or Broadcaster.from_settings(own, manager=self._drivers)
        self.outbox = background.outbox(own)
        self.background = Background()
        self.announcer = Announcer(self.database, self.broadcaster, self.outbox, self.background)
        self.passwords = passwords or Passwords()
        self.realtime = RealtimeApi(own)
        url = redis_url(own)
        self.shared = None if url is None else SharedRedis(url)
        """Redis, through which several API processes share state, if configured."""
        principals = Principals(self.shared, background=self.background)
        endings = Endings(self.database, self.realtime, self.background)
        self.users = Users(self.announcer, self.passwords, settings.session_days, endings, self.realtime, principals)
        self.presence = Presence(self.announcer)
        self.limits = RateLimits(MemoryCounter() if self.shared is None else RedisCounter(self.shared))
        typists = MemoryTypists() if self.shared is None else RedisTypists(self.shared)
        self.changes = Changes(self.announcer, self.limits)
        self.chat = Chat(self.announcer, self.presence, typists, self.limits)
        self.notifications = Notifications(self.announcer)
        self.revocations = ChannelRevocations(self.database, self.broadcaster, endings, admin_channels, self.background)
        self.campaigns = Campaigns(self.announcer, self.revocations)
        self.finance = Finance(self.announcer, self.limits)
        self.health = DatabaseHealth(self.database, self.background)
        self._errors = 0
        self._counts = RequestCounts()
        self.observer = PortalObserver(self.database, self.health, self.background, self._counts, lambda: self._errors)
        self._asyncapi: dict[str, Any] | None = None
        self.board = FigureBoard(self.announcer, self.realtime, lambda: self._errors)
        self.console = Console(self.announcer, self.board)
        self.announcer.listeners.append(self.console.envelopes)
        self.admin = Admin(self.announcer, self.realtime, self.users, self.board, self.console, self.revocations)
        self.sweep = Sweep(self.presence, self.realtime)
        self.rules = channel_rules(self.database)
        self.authorizer = ChannelAuthorizer.from_settings(self.rules, user_channels.member_of, own)
        self.relay = self._relay(WorkerOptions())
        self.app = self._build_app()

    async def start(self) -> None:
        """Check the database and start listening for revocations. Raises DatabaseAway."""
        async with self.database.reading() as session:
            await session.execute(text("SELECT 1"))
        self.users.principals.start()

    async def stop(self) -> None:
        """Release all resources. Recorded events stay in the database."""
        await self.console.aclose()
        await self.announcer.live.aclose()
        self.outbox.close()
        await self.revocations.aclose()
        await self.users.endings.aclose()
        await self.realtime.aclose()
        await self._drivers.aclose()
        await self.users.principals.aclose()
        if self.shared is not None:
            await self.shared.aclose()
        await self.database.aclose()

    async def work(self, stop: asyncio.Event, options: WorkerOptions | None = None) -> None:
        """Relay recorded events and run scheduled jobs, until `stop` is set or a limit in `options` is reached."""
        options = options or WorkerOptions()
        schedule = Schedule(self.database.engine, outbox_tables)
        schedule.every(SWEEP_EVERY_S, "presence sweep", self._sweep, first_s=2.0)
        schedule.every(END_EVERY_S, "endings and revocations", self._catch_up, is_needed=self._is_behind)
        schedule.every(SWEEP_EVERY_S, "expired sessions", self.users.end_expired, first_s=3.0)
        schedule.every(PRUNE_EVERY_S, "prune", self.prune, first_s=30.0)
        schedule.every(SAMPLE_EVERY_S, "figures", self.board.sample, first_s=1.0)
        showing = self.background.start("live figures", self.board.show(stop))
        self.observer.relay = relay = self._relay(options)
        try:
            await background.work(relay, schedule, stop, options)
        finally:
            await ended(showing)

    async def send_once(self, options: WorkerOptions) -> int:
        """Send the waiting events that this worker may send. Returns the number sent."""
        relay = self._relay(options)
        try:
            return await relay.run_once()
        finally:
            await relay.release()

    def _relay(self, options: WorkerOptions) -> Relay:
        return background.relay(
            self.database, self.broadcaster.driver, self.settings.broadcast, self.outbox.wakeup, options
        )

    async def prune(self) -> None:
        """Delete old sent events, stored responses, and expired sessions and tokens."""
        await self.relay.prune()
        await self.users.prune()
        async with self.database.writing() as session:
            await idempotency.prune(session)

    async def _is_behind(self) -> bool:
        """Return whether a process has left connections to end, or channels to revoke."""
        is_left = or_(self.users.endings.left().exists(), self.revocations.left().exists())
        async with self.database.reading() as session:
            return bool(await session.scalar(select(is_left)))

    async def _catch_up(self) -> None:
        await self.users.endings.run_once()
        await self.revocations.run_once()

    def _on_error(self, kind: str, where: str) -> None:
        self._errors += 1
        self.console.error(kind, where)

    async def _sweep(self) -> None:
        if self.settings.broadcast.driver == "reverb":
            await self.sweep.run_once()

    def _build_app(self) -> FastAPI:
        settings = self.settings
        app = FastAPI(
            title="SmartLink",
            version="1.0.0",
            description="Chat, notifications, campaigns and wallets. Errors are `{message}`, with `errors` on 422.",
            docs_url=None,
            redoc_url=None,
            openapi_url="/openapi.json",
            # A redirect would contain the request's Host header, which is untrusted.
            redirect_slashes=False,
            generate_unique_id_function=operation_id,
        )
        identity = Identity(
            self.users,
            app_url=settings.app_url,
            is_https=settings.is_https,
            session_s=settings.session_days * 86_400,
        )
        app.state.settings = settings
        app.state.announcer = self.announcer
        app.state.users = self.users
        app.state.identity = identity
        app.state.limits = self.limits
        app.state.presence = self.presence
        app.state.chat = self.chat
        app.state.changes = self.changes
        app.state.notifications = self.notifications
        app.state.campaigns = self.campaigns
        app.state.finance = self.finance
        app.state.authorizer = self.authorizer
        app.state.trusted_proxies = TrustedProxies(settings.trusted)
        app.state.admin = self.admin
        app.state.webhook_handlers = [Deliveries(self.announcer).apply]
        app.state.webhook_listeners = [self.console.webhooks]
        handle_errors(app, self._on_error)
        features = (
            user_routes,
            chat_routes,
            gaps,
            presence_routes,
            notification_routes,
            campaign_routes,
            finance_routes,
            admin_routes,
        )
        signing = Signing(self.authorizer, identity, self.limits)
        # Routes are tried in turn: signatures, which are asked for most, first.
        for path in ("/broadcasting/auth", "/broadcasting/user-auth"):
            app.router.routes.append(Route(path, signing, include_in_schema=False))
        for feature in features:
            app.router.routes.extend(feature.router.routes)
        self._add_own_routes(app)
        openapi.describe(app)
        app.router.default = pages.Pages(pages.STATIC, settings.asset_url)
        app.add_middleware(SocketIdMiddleware)
        app.add_middleware(pages.GuardMiddleware, settings=settings)
        app.add_middleware(CountingMiddleware, counts=self._counts)
        return app

    async def _events_described(self, _request: Request) -> Response:
        if self._asyncapi is None:
            self._asyncapi = asyncapi.document(self.broadcaster)
        return JSONResponse(self._asyncapi)

    def _add_own_routes(self, app: FastAPI) -> None:
        settings = self.settings
        app.router.routes.append(Route("/asyncapi.json", self._events_described, include_in_schema=False))
        app.router.routes.append(Route("/docs", pages.docs, include_in_schema=False))

        @app.head("/up", include_in_schema=False)
        @app.get("/up", tags=["operations"], response_model_exclude_none=True)
        async def up() -> Up:
            """Check the portal's health: 503, with the reason, while the database is down or does not accept writes.

            `degraded` means that a background task has died; `problems` names it. Restart the portal then.
            """
            problems = await self.health.check()
            return Up(status="degraded", problems=problems) if problems else Up()

        @app.get("/api/realtime", tags=["realtime"])
        async def realtime() -> RealtimeEndpoint:
            """Show how browsers reach the realtime server."""
            return RealtimeEndpoint.model_validate(settings.realtime)


def build(
    settings: PortalSettings, *, broadcaster: Broadcaster | None = None, passwords: Passwords | None = None
) -> Portal:
    """Build the portal. Raises BroadcastConfigError if the driver's settings are incomplete."""
    return Portal(settings, broadcaster=broadcaster, passwords=passwords)


def check_broadcasting(settings: PortalSettings) -> None:
    """Raise ValueError if the driver's settings are incomplete or Redis' address is invalid. Connects to nothing."""
    own = settings.broadcast
    try:
        Broadcaster.from_settings(own)
        own.signing_key()
    except BroadcastConfigError as error:
        raise ValueError(str(error)) from error
    url = redis_url(own)
    try:
        parse_url(url or "redis://")
    except ValueError:
        how = "use redis://user:password@host:6379/0, or rediss://… for TLS"
        raise ValueError(f"REDIS_URL is not a valid address of Redis; {how}") from None


def channel_rules(database: Database) -> ChannelRules:
    """Return the rules for who may subscribe to what. `database` is only used when a rule is evaluated."""
    rules = ChannelRules()
    for feature in (user_channels, presence_channels, chat_channels):
        feature.add_rules(rules)
    campaign_channels.add_rules(rules, database)
    return rules
