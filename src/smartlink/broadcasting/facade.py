"""All of it in one object: channels and who may listen, sending now, and announcing in a transaction.

broadcasting = Broadcasting.from_env(base=Base, engine=engine)


class OrderShipped(BroadcastEvent):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")


@broadcasting.private("orders.{order_id}")
async def may_follow(user: User, order_id: int) -> bool:
    return order_id in user.orders


app = FastAPI(lifespan=broadcasting.lifespan)
broadcasting.install(app, user=current_user)

broadcasting.announce(session, OrderShipped(order_id=7), to_others=True)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from smartlink.broadcasting.authorization import ChannelRules, Member
from smartlink.broadcasting.authorizer import ChannelAuthorizer
from smartlink.broadcasting.broadcaster import Broadcaster, Report
from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.drivers.base import Driver, leaves_out_users
from smartlink.broadcasting.encryption import ChannelEncryption
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastConfigError, BroadcastError, BroadcastFailed
from smartlink.broadcasting.events import BroadcastEvent
from smartlink.broadcasting.manager import DriverFactory, DriverManager
from smartlink.broadcasting.sync import SyncBroadcaster

if TYPE_CHECKING:
    from smartlink.broadcasting.outbox import Outbox, OutboxTables, Until
    from smartlink.broadcasting.recording import AnySession, Base, Database, Recording, RelayThread

__all__ = ["BaseBroadcasting", "Broadcasting"]

_log = logging.getLogger("smartlink.broadcasting")

Rule = TypeVar("Rule", bound=Callable[..., object])
Loaded = TypeVar("Loaded")


class BaseBroadcasting:
    """What `Broadcasting` and `DjangoBroadcasting` share: settings, rules, and sending at once.

    `member_of` says who a user is on the wire; by default a user's `pk` or `id`, or a user that is an id itself.
    `drivers` are drivers of your own, by name. `report` hears of events that could not be sent, by default one line in
    the log.
    """

    def __init__(
        self,
        settings: BroadcastSettings | None = None,
        *,
        member_of: Callable[[Any], Member] | None = None,
        drivers: Mapping[str, DriverFactory] | None = None,
        report: Report | None = None,
    ) -> None:
        self.settings = settings or BroadcastSettings()
        self.rules = ChannelRules()
        self._member_of = member_of or _member_of
        self._drivers = dict(drivers or {})
        self._report = report or _log_failure
        self._manager = self._new_manager()
        self.broadcaster = Broadcaster(
            _ManagedDriver(self._manager),
            self.settings.namespace,
            self.settings.max_data_bytes,
            find_driver=partial(_ManagedDriver, self._manager),
            encryption=ChannelEncryption.from_settings(self.settings),
            report=self._report,
        )
        self.sync = SyncBroadcaster(self._new_broadcaster)

    @cached_property
    def authorizer(self) -> ChannelAuthorizer[Any]:
        """Signs for those whom the rules let in. Raises BroadcastConfigError for a key that is missing."""
        return ChannelAuthorizer.from_settings(self.rules, self._member_of, self.settings)

    def resolve(self, kind: type[Loaded], load: Callable[[Any], Loaded | Awaitable[Loaded | None] | None]) -> None:
        """As `ChannelRules.resolve`."""
        self.rules.resolve(kind, load)

    def private(self, pattern: str, *, guards: Sequence[str] = ()) -> Callable[[Rule], Rule]:
        """A rule for private and encrypted channels; see `ChannelRules`. Raises ValueError for a pattern that the
        function does not fit."""
        return self.rules.private(pattern, guards=guards)

    def presence(self, pattern: str, *, guards: Sequence[str] = ()) -> Callable[[Rule], Rule]:
        """A rule for presence channels: True allows, and a mapping is what others see of the user. Raises ValueError
        for a pattern that the function does not fit."""
        return self.rules.presence(pattern, guards=guards)

    async def send_now(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> bool:
        """Send `event` at once and at most once; whether the service took it. Nothing is recorded.

        A service that is away or refuses the event is reported, and False returned: an outage is no failure of the
        request, which waits BROADCAST_TIMEOUT at most. `broadcaster.send` raises instead. Raises what
        `Broadcaster.pack` raises.
        """
        try:
            packed = self.broadcaster.pack_to_send(
                event, socket_id=socket_id, to_others=to_others, to_other_users=to_other_users
            )
            await self.broadcaster.send_envelopes(packed)
        except BroadcastError as error:
            return self._handle_failure(event, error)
        return True

    def send_now_sync(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> bool:
        """As `send_now`, blocking. Raises RuntimeError inside a running event loop."""
        try:
            packed = self.broadcaster.pack_to_send(
                event, socket_id=socket_id, to_others=to_others, to_other_users=to_other_users
            )
            self.sync.send_envelopes(packed)
        except BroadcastError as error:
            return self._handle_failure(event, error)
        return True

    def close(self) -> None:
        """Close what `send_now_sync` opened. A later use opens it again."""
        self.sync.close()

    async def aclose(self) -> None:
        """Close what `send_now` opened in this event loop. A later use opens it again."""
        await self._manager.aclose()

    def _handle_failure(self, event: BroadcastEvent, error: BroadcastError) -> bool:
        """Report a failed send, or raise an error that the caller made."""
        if not isinstance(error, BroadcastFailed) and not event.broadcast_rescue:
            raise error
        self._report(event, error)
        return False

    def _new_manager(self) -> DriverManager:
        manager = DriverManager(self.settings)
        for name, factory in self._drivers.items():
            manager.extend(name, factory)
        return manager

    def _new_broadcaster(self) -> Broadcaster:
        return Broadcaster.from_settings(self.settings, manager=self._new_manager(), report=self._report)


class Broadcasting(BaseBroadcasting):
    """Broadcasting in one object, for FastAPI, Starlette and Flask; Django has `DjangoBroadcasting`.

    `base` is your declarative base, or its MetaData: the outbox's tables are added to it, for your migrations or
    `create_all` to create. `announce` needs it, nothing else does.

    With `relay` this process sends what was recorded, as long as `lifespan` lasts, in Flask from the first request on.
    Any number of processes may: they share the work. With `relay=False` workers do: `run_worker`.

    `engine` is where the relay finds what was recorded: an engine, async or not, or a URL. Without it the relay begins
    with the first session that announces, and what an earlier process left waits until then.

    Raises BroadcastConfigError for a driver that is unknown or lacks a setting.
    """

    def __init__(
        self,
        settings: BroadcastSettings | None = None,
        *,
        base: Base | None = None,
        engine: Database | None = None,
        relay: bool = True,
        member_of: Callable[[Any], Member] | None = None,
        drivers: Mapping[str, DriverFactory] | None = None,
        report: Report | None = None,
    ) -> None:
        super().__init__(settings, member_of=member_of, drivers=drivers, report=report)
        self._recording: Recording | None = None
        if base is not None:
            import smartlink.broadcasting.outbox.requirements  # first: says in words what is missing  # noqa: F401
            from smartlink.broadcasting.recording import Recording

            self._recording = Recording(
                self.broadcaster, base, engine, send_live=self._send_live, timeout_s=self.settings.timeout_s
            )
        self._relays = relay and base is not None
        self._running = 0
        self._thread: RelayThread | None = None
        self._has_warned = False

    @classmethod
    def from_env(
        cls,
        *,
        base: Base | None = None,
        engine: Database | None = None,
        relay: bool = True,
        member_of: Callable[[Any], Member] | None = None,
        drivers: Mapping[str, DriverFactory] | None = None,
        report: Report | None = None,
    ) -> Self:
        """As the constructor, with the settings of the environment and `.env`: those of `BroadcastSettings`."""
        return cls(
            BroadcastSettings(),
            base=base,
            engine=engine,
            relay=relay,
            member_of=member_of,
            drivers=drivers,
            report=report,
        )

    @property
    def outbox(self) -> Outbox:
        """Where `announce` records; reads back what clients missed. Raises BroadcastConfigError without a `base`."""
        return self._needed("outbox").outbox

    @property
    def tables(self) -> OutboxTables:
        """The outbox's tables. Raises BroadcastConfigError without a `base`."""
        return self._needed("tables").tables

    def announce(
        self,
        session: AnySession,
        event: BroadcastEvent,
        *,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> None:
        """Record `event` in the session's transaction; it is sent after the commit, at least once, and never after a
        rollback. An outage delays it.

        Works for every session of SQLAlchemy, plain, async or scoped, and waits for nothing. Live events
        (`BroadcastNow`) are not recorded, and are sent after the commit at most once. Raises BroadcastConfigError
        without a `base`, and what `Broadcaster.pack` raises.
        """
        recording = self._needed("announce")
        recording.announce(session, event, to_others=to_others, to_other_users=to_other_users)
        if self._thread is not None:
            self._thread.ensure()
        elif self._relays and not self._running and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "events are recorded, and no relay runs here to send them: FastAPI(lifespan=broadcasting.lifespan), "
                "or Broadcasting(relay=False) and a worker"
            )

    def close(self) -> None:
        """Close what `send_now_sync` opened, and end the thread that relays in Flask. A later use begins anew."""
        if self._thread is not None:
            self._thread.close()
        super().close()

    def attach(self, sessions: Any) -> None:
        """Announce the changes of models, too (`BroadcastsChanges`), in these sessions: a `sessionmaker`,
        `async_sessionmaker`, `scoped_session` or `async_scoped_session`. Raises BroadcastConfigError without a `base`.
        """
        self._needed("attach").sessions.attach(sessions)

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """Relay and keep connections for as long as the application runs: `FastAPI(lifespan=broadcasting.lifespan)`.

        In a lifespan of your own: `async with broadcasting.lifespan(): yield`.
        """
        stop = asyncio.Event()
        relay = None
        if self._relays and self._recording is not None:
            relay = asyncio.create_task(self._recording.relay(stop, is_own_loop=False), name="smartlink relay")
            relay.add_done_callback(_log_end)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            stop.set()
            try:
                if relay is not None:
                    await relay
            finally:
                await self.aclose()
                await asyncio.to_thread(self.close)

    def install(
        self,
        app: Any,
        *,
        user: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None = None,
        prefix: str = "/broadcasting",
    ) -> None:
        """Add to a FastAPI, Starlette or Flask application what Echo asks for: `{prefix}/auth`, `{prefix}/user-auth`,
        and the middleware that `to_others=True` needs.

        `user` gives the current user, or None for 401: in FastAPI a dependency, in Starlette a function of the request,
        plain or async, in Flask a function without arguments. A mapping of names to such functions makes several
        guards. Without `user` there are no such paths, and public channels only. Raises TypeError for another kind of
        application: mount `BroadcastingAuth` or `BroadcastingAuthWsgi` there.
        """
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(app).__mro__}
        if "fastapi.FastAPI" in kinds:
            from smartlink.broadcasting.integrations.fastapi import install

            install(app, self.authorizer if user else None, user, prefix)
        elif "starlette.Starlette" in kinds:
            from smartlink.broadcasting.integrations.starlette import install as install_in_starlette

            install_in_starlette(app, self.authorizer if user else None, user, prefix)
        elif "flask.Flask" in kinds:
            from smartlink.broadcasting.integrations.flask import install as install_in_flask

            install_in_flask(app, self.authorizer if user else None, user, prefix, self._relay_in_a_thread())
        else:
            raise TypeError(
                f"install() knows FastAPI, Starlette and Flask, not {type(app).__name__}: mount "
                "BroadcastingAuth(broadcasting.authorizer, ...); for Django there is DjangoBroadcasting"
            )

    async def run_worker(
        self, *, queues: Sequence[str] | None = None, concurrency: int = 4, until: Until | None = None
    ) -> None:
        """Send what is recorded until SIGTERM or Ctrl-C: a worker process of its own, `asyncio.run(...)`.

        `python -m smartlink.broadcasting myapp.main:broadcasting` does it. Options as those of `outbox.run_worker`.
        Raises BroadcastConfigError without `base` and `engine`.
        """
        recording = self._needed("run_worker")
        try:
            await recording.relay(None, is_own_loop=True, queues=queues, concurrency=concurrency, until=until)
        finally:
            await self.aclose()

    def _relay_in_a_thread(self) -> Callable[[], None] | None:
        """What is to be called with each request, so that a thread relays in the process that serves it."""
        if not self._relays or self._recording is None:
            return None
        from smartlink.broadcasting.recording import RelayThread

        recording = self._recording

        async def relay(stop: asyncio.Event) -> None:
            try:
                await recording.relay(stop, is_own_loop=True)
            finally:
                await self.aclose()

        self._thread = RelayThread(relay)
        return self._thread.ensure

    def _needed(self, what: str) -> Recording:
        if self._recording is None:
            raise BroadcastConfigError(
                f"{what} needs the outbox's tables in your database: Broadcasting.from_env(base=Base), with your "
                "declarative base or its MetaData, and a migration that creates them; send_now needs neither"
            )
        return self._recording

    def _send_live(self, envelopes: Sequence[Envelope]) -> object:
        """After a commit: left to a task where a loop runs, else blocking."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.sync.send_envelopes(envelopes)
            return None
        return self.broadcaster.send_envelopes(envelopes)


class _ManagedDriver:
    """A manager's driver by its name, asked for at each call: after the manager was closed it is built again."""

    def __init__(self, manager: DriverManager, asked: str | None = None) -> None:
        driver = manager.driver(asked)
        self.name = driver.name
        self.leaves_out_users = leaves_out_users(driver)
        self._manager = manager
        self._asked = asked

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Raises BroadcastFailed."""
        driver: Driver = self._manager.driver(self._asked)
        await driver.send(envelopes, idempotency_key=idempotency_key)

    async def aclose(self) -> None:
        """The manager closes it."""


def _member_of(user: Any) -> Member:
    if isinstance(user, Member):
        return user
    if isinstance(user, str | int) and not isinstance(user, bool):
        return Member(user)
    found = getattr(user, "pk", None) or getattr(user, "id", None)
    if isinstance(found, UUID):
        found = str(found)
    if not isinstance(found, str | int) or isinstance(found, bool):
        raise BroadcastConfigError(
            f"{type(user).__name__} has no id of text or number: give Broadcasting a "
            "member_of=lambda user: Member(user.id)"
        )
    return Member(found)


def _log_failure(event: BroadcastEvent, error: BroadcastError) -> None:
    _log.error("%s was not sent: %s: %s", type(event).__name__, type(error).__name__, error)


def _log_end(relay: asyncio.Task[None]) -> None:
    if not relay.cancelled() and (error := relay.exception()) is not None:
        _log.error("the relay has ended, what is recorded waits: %s: %s", type(error).__name__, error)
