"""The whole library in one object: channel rules, sending now, and announcing in a transaction.

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

from smartlink.broadcasting.authorization import ChannelRules, Member, Rule
from smartlink.broadcasting.authorizer import ChannelAuthorizer
from smartlink.broadcasting.broadcaster import Broadcaster, Report
from smartlink.broadcasting.channels import Channel
from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.encryption import ChannelEncryption
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastConfigError, BroadcastError, BroadcastFailed
from smartlink.broadcasting.events import BroadcastEvent
from smartlink.broadcasting.manager import DriverFactory, DriverManager, ManagedDriver
from smartlink.broadcasting.revocation import Revocation, revocation
from smartlink.broadcasting.sync import SyncBroadcaster
from smartlink.broadcasting.users import check_user_function
from smartlink.broadcasting.users import member_of as member_by_id

if TYPE_CHECKING:
    from smartlink.broadcasting.outbox import Outbox, OutboxTables, Until
    from smartlink.broadcasting.recording import AnySession, Base, Database, Recording, RelayThread

__all__ = ["BaseBroadcasting", "Broadcasting"]

_NEEDS_BASE = (
    "Broadcasting.from_env(base=Base), with your declarative base or its MetaData, and a migration that creates them; "
    "send_now needs neither"
)
_log = logging.getLogger("smartlink.broadcasting")

Loaded = TypeVar("Loaded")


class BaseBroadcasting:
    """The base class of `Broadcasting` and `DjangoBroadcasting`: settings, rules, and sending now.

    `member_of` returns a user's `Member`; by default its id is the user's `pk` or `id`, or the user if that is an id
    itself. `drivers` are your own drivers, by name. `report` is called with events that could not be sent; by default
    it logs a line.
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
        self._member_of = member_of or member_by_id
        self._drivers = dict(drivers or {})
        self._report = report or _log_failure
        self._manager = self._new_manager()
        self.broadcaster = Broadcaster(
            ManagedDriver(self._manager),
            self.settings.namespace,
            self.settings.max_data_bytes,
            find_driver=partial(ManagedDriver, self._manager),
            encryption=ChannelEncryption.from_settings(self.settings),
            report=self._report,
        )
        self.sync = SyncBroadcaster(self._new_broadcaster)

    @cached_property
    def authorizer(self) -> ChannelAuthorizer[Any]:
        """The `ChannelAuthorizer` of these rules. Raises BroadcastConfigError if the app's key or secret is missing."""
        return ChannelAuthorizer.from_settings(self.rules, self._member_of, self.settings)

    def resolve(self, kind: type[Loaded], load: Callable[[Any], Loaded | Awaitable[Loaded | None] | None]) -> None:
        """Add a loader; see `ChannelRules.resolve`."""
        self.rules.resolve(kind, load)

    def private(self, pattern: str, *, guards: Sequence[str] = ()) -> Callable[[Rule], Rule]:
        """Add a rule for private and encrypted channels; a decorator, see `ChannelRules`.

        Raises ValueError if pattern and function do not match.
        """
        return self.rules.private(pattern, guards=guards)

    def presence(self, pattern: str, *, guards: Sequence[str] = ()) -> Callable[[Rule], Rule]:
        """Add a rule for presence channels; a decorator, see `ChannelRules`.

        The function returns True to allow, or a mapping that other members see as the user's info. Raises ValueError
        if pattern and function do not match.
        """
        return self.rules.presence(pattern, guards=guards)

    async def send_now(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> bool:
        """Send `event` now, at most once, without recording it. Returns whether the service accepted it.

        If the service is unavailable or refuses the event, reports that and returns False, so that an outage does not
        fail the request; it waits at most BROADCAST_TIMEOUT. `broadcaster.send` raises instead. Raises what
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
        """Send like `send_now`, blocking. Raises RuntimeError inside a running event loop."""
        try:
            packed = self.broadcaster.pack_to_send(
                event, socket_id=socket_id, to_others=to_others, to_other_users=to_other_users
            )
            self.sync.send_envelopes(packed)
        except BroadcastError as error:
            return self._handle_failure(event, error)
        return True

    async def revoke(
        self,
        subject: object,
        /,
        channel: Channel | str | None = None,
        *,
        everyone: bool = False,
        reason: str | None = None,
        via: str | None = None,
    ) -> None:
        """Revoke like `Broadcaster.revoke`; `subject` is a user or a user's id, or with `everyone` the channel.

            await broadcasting.revoke(user, PrivateChannel("orders.7"), reason="The order was cancelled")
            await broadcasting.revoke(user)  # all private and presence channels
            await broadcasting.revoke(PrivateChannel("orders.7"), everyone=True)

        Call it after the commit of what your rules read. Raises what `Broadcaster.revoke` raises; in particular
        BroadcastFailed if the service cannot be reached, since nothing repeats it for you.
        """
        await self.broadcaster.send_revocation(self._revocation(subject, channel, everyone, reason), via)

    def revoke_sync(
        self,
        subject: object,
        /,
        channel: Channel | str | None = None,
        *,
        everyone: bool = False,
        reason: str | None = None,
        via: str | None = None,
    ) -> None:
        """Revoke like `revoke`, blocking. Raises RuntimeError inside a running event loop."""
        self.sync.send_revocation(self._revocation(subject, channel, everyone, reason), via)

    def _revocation(
        self, subject: object, channel: Channel | str | None, everyone: bool, reason: str | None
    ) -> Revocation:
        named = subject if everyone or isinstance(subject, Channel) else self._member_of(subject).id
        return revocation(named, channel, everyone=everyone, reason=reason)

    def close(self) -> None:
        """Close the connections of `send_now_sync`. A later use opens them again."""
        self.sync.close()

    async def aclose(self) -> None:
        """Close the connections of `send_now` in this event loop. A later use opens them again."""
        await self._manager.aclose()

    def _handle_failure(self, event: BroadcastEvent, error: BroadcastError) -> bool:
        """Report a failed send; raise an error of the caller."""
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

    `base` is your declarative base, or its MetaData. The outbox's tables are added to it; your migrations or
    `create_all` create them. Only `announce` needs it.

    With `relay`, this process sends recorded events: while `lifespan` runs, or in Flask from the first request on. Any
    number of processes may do so; they share the work. With `relay=False`, run workers instead: `run_worker`.

    `engine` is the database of the recorded events: an engine, async or not, or a URL. Without it the relay starts when
    the first session announces, and events left by an earlier process wait until then.

    With `embedded`, the realtime server runs in this process, too, on REVERB_SERVER_PORT, while `lifespan` runs; it
    needs the extra `server`. REVERB_SERVER_EMBEDDED=false moves it out: run `smartlink reverb start` instead.

    Raises BroadcastConfigError if the driver is unknown or lacks a setting, if `base` has no metadata, and for `engine`
    without `base`.
    """

    def __init__(
        self,
        settings: BroadcastSettings | None = None,
        *,
        base: Base | None = None,
        engine: Database | None = None,
        relay: bool = True,
        embedded: bool = False,
        member_of: Callable[[Any], Member] | None = None,
        drivers: Mapping[str, DriverFactory] | None = None,
        report: Report | None = None,
    ) -> None:
        super().__init__(settings, member_of=member_of, drivers=drivers, report=report)
        self._recording: Recording | None = None
        if base is not None:
            import smartlink.broadcasting.outbox.requirements  # first: reports missing packages  # noqa: F401
            from smartlink.broadcasting.recording import Recording

            self._recording = Recording(
                self.broadcaster, base, engine, send_live=self._send_live, timeout_s=self.settings.timeout_s
            )
        elif engine is not None:
            raise BroadcastConfigError(f"an engine alone records nothing: {_NEEDS_BASE}")
        self._relays = relay and base is not None
        self._embeds = embedded
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
        embedded: bool = False,
        member_of: Callable[[Any], Member] | None = None,
        drivers: Mapping[str, DriverFactory] | None = None,
        report: Report | None = None,
    ) -> Self:
        """Build from the environment and `.env`; see `BroadcastSettings`. The arguments are the constructor's."""
        return cls(
            BroadcastSettings(),
            base=base,
            engine=engine,
            relay=relay,
            embedded=embedded,
            member_of=member_of,
            drivers=drivers,
            report=report,
        )

    @property
    def outbox(self) -> Outbox:
        """The outbox that `announce` records in. Raises BroadcastConfigError without `base`."""
        return self._needed("outbox").outbox

    @property
    def tables(self) -> OutboxTables:
        """The outbox's tables. Raises BroadcastConfigError without `base`."""
        return self._needed("tables").tables

    def announce(
        self,
        session: AnySession,
        event: BroadcastEvent,
        *,
        to_others: bool = False,
        to_other_users: str | int | None = None,
        receipts: bool | None = None,
    ) -> None:
        """Record `event` in the session's transaction, and send it after the commit.

        It is sent at least once, and not after a rollback; an outage delays it. Works with every SQLAlchemy session,
        synchronous, async or scoped, and never blocks. Live events (`BroadcastNow`) are not recorded, and are sent
        after the commit at most once. `receipts` overrides the event's `broadcast_receipts`. Raises
        BroadcastConfigError without `base`, and what `Broadcaster.pack` raises.
        """
        recording = self._needed("announce")
        recording.announce(session, event, to_others=to_others, to_other_users=to_other_users, receipts=receipts)
        if self._thread is not None:
            self._thread.ensure()
        elif self._relays and not self._running and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "events are recorded, but no relay runs in this process to send them: use "
                "FastAPI(lifespan=broadcasting.lifespan), or Broadcasting(relay=False) and a worker"
            )

    def close(self) -> None:
        """Close the connections of `send_now_sync`, and stop Flask's relay thread. A later use starts again."""
        if self._thread is not None:
            self._thread.close()
        super().close()

    def attach(self, sessions: Any) -> None:
        """Announce the changes of models with `BroadcastsChanges` in `sessions`.

        `sessions` is a `sessionmaker`, `async_sessionmaker`, `scoped_session` or `async_scoped_session`. Raises
        BroadcastConfigError without `base`.
        """
        self._needed("attach").sessions.attach(sessions)

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """Run the relay and keep connections while the application runs: `FastAPI(lifespan=broadcasting.lifespan)`.

        With `embedded`, run the realtime server around that. Within your own lifespan:
        `async with broadcasting.lifespan(): yield`. Raises at the start: BroadcastConfigError if the relay cannot use
        the database or the server's packages are missing; ServerRunsAlready in a second worker of the application.
        """
        if not self._embeds:
            async with self._relaying():
                yield
            return
        from smartlink.broadcasting.embedding import server_beside

        async with server_beside(self.settings) as port:
            if port is not None and self.settings.reverb_server_port == 0:
                await self._reach(port)
            async with self._relaying():
                yield

    async def _reach(self, port: int) -> None:
        """Publish to the port that the system has picked for the embedded server."""
        self.settings = self.settings.model_copy(update={"reverb_port": port})
        self._manager.use(self.settings)
        await self.aclose()  # what was built for another port
        await asyncio.to_thread(self.close)

    @asynccontextmanager
    async def _relaying(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        relay = None
        if self._relays and self._recording is not None:
            self._recording.check_database()
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
        """Add `{prefix}/auth`, `{prefix}/user-auth` and the middleware for `to_others=True` to an application.

        `app` is a FastAPI, Starlette or Flask application. `user` returns the current user, or None for 401: in FastAPI
        a dependency; in Starlette a function of the request, which may be async; in Flask a function without arguments.
        Pass a mapping of names to such functions for several guards. Without `user` the two paths are not added, and
        only public channels work. Raises TypeError if `user` is not a function, and for another kind of application;
        mount `BroadcastingAuth` or `BroadcastingAuthWsgi` there.
        """
        check_user_function(user)
        if user is None and self.rules.rules:
            _log.warning("channels have rules, and nobody can subscribe to them: install(app, user=...) is missing")
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(app).__mro__}
        if "fastapi.FastAPI" in kinds:
            from smartlink.broadcasting.integrations.fastapi import install

            install(app, self.authorizer if user else None, user, prefix)
        elif "starlette.Starlette" in kinds:
            from smartlink.broadcasting.integrations.starlette import install as install_in_starlette

            install_in_starlette(app, self.authorizer if user else None, user, prefix)
        elif "flask.Flask" in kinds:
            if self._embeds:
                raise BroadcastConfigError(
                    "embedded=True needs an application with an event loop: with Flask, run smartlink reverb start"
                )
            from smartlink.broadcasting.integrations.flask import install as install_in_flask

            install_in_flask(app, self.authorizer if user else None, user, prefix, self._relay_in_a_thread())
        else:
            raise TypeError(
                f"install() supports FastAPI, Starlette and Flask, not {type(app).__name__}: mount "
                "BroadcastingAuth(broadcasting.authorizer, ...); for Django use DjangoBroadcasting"
            )

    async def run_worker(
        self, *, queues: Sequence[str] | None = None, concurrency: int = 4, until: Until | None = None
    ) -> None:
        """Send recorded events until SIGTERM or Ctrl-C, in a worker process: `asyncio.run(broadcasting.run_worker())`.

        `python -m smartlink.broadcasting myapp.main:broadcasting` does the same. The options are those of
        `outbox.run_worker`. Raises BroadcastConfigError without `base` and `engine`.
        """
        recording = self._needed("run_worker")
        try:
            await recording.relay(None, is_own_loop=True, queues=queues, concurrency=concurrency, until=until)
        finally:
            await self.aclose()

    def _handle_failure(self, event: BroadcastEvent, error: BroadcastError) -> bool:
        if self._embeds and self.settings.reverb_server_embedded and not self._running and not self._has_warned:
            self._has_warned = True
            _log.warning("the embedded server does not run: use FastAPI(lifespan=broadcasting.lifespan)")
        return super()._handle_failure(event, error)

    def _relay_in_a_thread(self) -> Callable[[], None] | None:
        """Return a function to call on each request, which starts the relay's thread in the process that serves it."""
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
            raise BroadcastConfigError(f"{what} needs the outbox's tables in your database: {_NEEDS_BASE}")
        return self._recording

    def _send_live(self, envelopes: Sequence[Envelope]) -> object:
        """Send after a commit: returns a coroutine if a loop runs, blocks otherwise."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.sync.send_envelopes(envelopes)
            return None
        return self.broadcaster.send_envelopes(envelopes)


def _log_failure(event: BroadcastEvent, error: BroadcastError) -> None:
    _log.error("%s was not sent: %s: %s", type(event).__name__, type(error).__name__, error)


def _log_end(relay: asyncio.Task[None]) -> None:
    if not relay.cancelled() and (error := relay.exception()) is not None:
        _log.error("the relay has stopped, recorded events wait: %s: %s", type(error).__name__, error)
