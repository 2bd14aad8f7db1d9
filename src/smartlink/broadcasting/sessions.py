"""Broadcasts in SQLAlchemy transactions: recorded with the change, sent after the commit, dropped by a rollback.

broadcasts = SessionBroadcasts(broadcaster, outbox)
broadcasts.attach(async_sessions)

async with async_sessions.begin() as session:
    order.status = "shipped"
    broadcasts.announce(session, OrderShipped(order), to_others=True)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event, inspect
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction, scoped_session
from sqlalchemy.orm.exc import DetachedInstanceError, ObjectDeletedError

from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.changes import Change, ModelChanged
from smartlink.broadcasting.envelope import Delivery, Envelope
from smartlink.broadcasting.errors import BroadcastConfigError, BroadcastError
from smartlink.broadcasting.events import BroadcastEvent
from smartlink.broadcasting.models import BroadcastsChanges
from smartlink.broadcasting.outbox import Outbox

__all__ = ["SessionBroadcasts"]

AnySession = Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any]

_log = logging.getLogger("smartlink.broadcasting")


@dataclass(frozen=True, slots=True)
class _Announced:
    """What a savepoint announced, or the transaction itself (`within` None)."""

    within: SessionTransaction | None
    envelopes: Callable[[], Sequence[Envelope]]


@dataclass(slots=True)
class _Pending:
    """What a session will announce when it commits, and what it has recorded already."""

    announced: list[_Announced] = field(default_factory=list)
    recorded: list[Envelope] = field(default_factory=list)
    live: list[Envelope] = field(default_factory=list)
    flushed: object = None
    """The last flush or deleted model handled: a session that is attached twice reports each twice."""
    is_ending: bool = False
    is_recorded: bool = False
    """Whether events have been recorded; other listeners may still announce more during the commit."""


class SessionBroadcasts:
    """Records the events that sessions announce, and the changes of models with `BroadcastsChanges`.

    `send_live` sends live envelopes after the commit: `Broadcaster.send_envelopes` with async sessions (it runs in a
    task), `SyncBroadcaster.send_envelopes` with others, or a function that queues them. Its errors are logged, since
    the commit has succeeded. Without it, live events raise an error.
    """

    def __init__(
        self,
        broadcaster: Broadcaster,
        outbox: Outbox,
        *,
        send_live: Callable[[Sequence[Envelope]], object] | None = None,
    ) -> None:
        self._broadcaster = broadcaster
        self._outbox = outbox
        self._send_live = send_live
        self._sending: set[asyncio.Task[None]] = set()
        self._key = f"smartlink.broadcasts.{id(self):x}"

    def attach(self, sessions: Any) -> None:
        """Attach to `sessions`: a `sessionmaker`, `async_sessionmaker`, `scoped_session`, `async_scoped_session`, a
        class of sessions, or one session; synchronous or asynchronous.
        """
        target = sessions.session_factory if isinstance(sessions, async_scoped_session) else sessions
        if isinstance(target, AsyncSession):
            target = target.sync_session
        elif isinstance(target, async_sessionmaker):
            # SQLAlchemy has no events on async makers, but on the class of their inner sessions.
            base: type[Session] = target.kw.get("sync_session_class") or target.class_.sync_session_class
            target.configure(sync_session_class=type("BroadcastingSession", (base,), {}))
            target = target.kw["sync_session_class"]
        elif isinstance(target, type) and issubclass(target, AsyncSession):
            # Nor on classes of async sessions: give this one its own class of inner sessions.
            target.sync_session_class = type("BroadcastingSession", (target.sync_session_class,), {})
            target = target.sync_session_class
        event.listen(target, "before_flush", _load_before_deletion)
        event.listen(target, "after_flush", self._after_flush)
        event.listen(target, "persistent_to_deleted", self._after_deletion)
        self._listen_to_transactions(target)

    def follow(self, session: AnySession) -> Session:
        """Let one session announce, without the changes of its models. Returns its synchronous session."""
        own = _plain(session)
        if not self._listens_to(own):
            self._listen_to_transactions(own)
        return own

    def _listen_to_transactions(self, target: Any) -> None:
        event.listen(target, "after_flush_postexec", self._record_rest)
        event.listen(target, "before_commit", self._before_commit)
        event.listen(target, "after_commit", self._after_commit)
        event.listen(target, "after_soft_rollback", self._after_rollback)
        event.listen(target, "after_transaction_end", self._after_end)

    def _listens_to(self, session: Session) -> bool:
        return self._before_commit in tuple(session.dispatch.before_commit)

    def announce(
        self,
        session: AnySession,
        what: BroadcastEvent,
        *,
        to_others: bool = False,
        to_other_users: str | int | None = None,
        receipts: bool | None = None,
    ) -> None:
        """Announce `what` if the session's transaction is committed; begins one if there is none.

        Raises, at once, what `Broadcaster.pack` raises, unless the event has `broadcast_rescue`; and
        BroadcastConfigError for a session that is not attached, or a live event without `send_live`.
        """
        own = _plain(session)
        if not self._listens_to(own):
            raise BroadcastConfigError(
                f"{type(what).__name__} would never be sent: this session is not attached; call attach() with your "
                "sessionmaker first"
            )
        if what.delivery == Delivery.LIVE and self._send_live is None:
            raise BroadcastConfigError(f"{type(what).__name__} is live: give SessionBroadcasts a send_live")
        try:
            envelopes = self._broadcaster.pack(
                what, to_others=to_others, to_other_users=to_other_users, receipts=receipts
            )
        except BroadcastError as error:
            self._broadcaster.rescue(what, error)
            return
        if not own.in_transaction():
            # Otherwise a rollback would not undo it.
            own.begin()
        self._pending(own).announced.append(_Announced(own.get_nested_transaction(), lambda: envelopes))
        self._record_rest(own)

    def _pending(self, session: Session) -> _Pending:
        pending: _Pending = session.info.setdefault(self._key, _Pending())
        return pending

    def _after_flush(self, session: Session, flushed: UOWTransaction) -> None:
        pending = self._pending(session)
        if pending.flushed is flushed:
            return
        pending.flushed = flushed
        within = session.get_nested_transaction()
        for model, change in _changes(session):
            pending.announced.append(_Announced(within, self._packing(session, model, change)))

    def _after_deletion(self, session: Session, model: object) -> None:
        """Handle a deletion by `session.delete`, by a cascade, or of an orphan."""
        pending = self._pending(session)
        if not isinstance(model, BroadcastsChanges) or "deleted" not in model.broadcast_changes:
            return
        if pending.flushed is model:
            return
        pending.flushed = model
        try:
            # Its attributes can still be read now.
            envelopes = self._pack(model, "deleted")
        except ObjectDeletedError:
            _log_gone(model, "deleted")
            return
        pending.announced.append(_Announced(session.get_nested_transaction(), lambda: envelopes))

    def _packing(self, session: Session, model: BroadcastsChanges, change: Change) -> Callable[[], Sequence[Envelope]]:
        """Return a function that packs the change at the commit, in its final state; nothing if the row is gone."""

        def pack() -> Sequence[Envelope]:
            state = inspect(model)
            if state.was_deleted:  # its deletion is announced
                return ()
            try:
                if state.session is session:
                    return self._pack(model, change)
                return self._pack_row(session, model, change)
            except (ObjectDeletedError, DetachedInstanceError):
                _log_gone(model, change)
                return ()

        return pack

    def _pack_row(self, session: Session, model: BroadcastsChanges, change: Change) -> Sequence[Envelope]:
        """Pack a change of a model that has left `session`, by reading its row again in the same transaction."""
        state = inspect(model)
        identity = state.identity or state.mapper.primary_key_from_instance(model)
        connection = session.connection(bind_arguments={"mapper": state.mapper})
        with Session(connection, join_transaction_mode="rollback_only") as reading:
            row = reading.get(type(model), identity)
            return () if row is None else self._pack(row, change)

    def _pack(self, model: BroadcastsChanges, change: Change) -> Sequence[Envelope]:
        return self._broadcaster.pack(ModelChanged.of(model, change), to_others=model.broadcast_to_others)

    def _before_commit(self, session: Session) -> None:
        pending = self._pending(session)
        if session.in_nested_transaction() or pending.is_ending:
            return
        pending.is_ending = True
        try:
            session.flush()
            self._record(session, pending)
            pending.is_recorded = True
        finally:
            pending.is_ending = False

    def _record_rest(self, session: Session, _: object = None) -> None:
        """Record events announced during the commit, which nothing else would record."""
        pending = self._pending(session)
        if pending.is_recorded and pending.announced:
            self._record(session, pending)

    def _record(self, session: Session, pending: _Pending) -> None:
        announced, pending.announced = pending.announced, []
        try:
            self._record_these(session, pending, announced)
        except BaseException:
            # A second commit without a rollback records them too, or fails again.
            pending.announced = [*announced, *pending.announced]
            raise

    def _record_these(self, session: Session, pending: _Pending, announced: Sequence[_Announced]) -> None:
        envelopes = [envelope for each in announced for envelope in each.envelopes()]
        recorded = [envelope for envelope in envelopes if envelope.delivery is not Delivery.LIVE]
        live = [envelope for envelope in envelopes if envelope.delivery is Delivery.LIVE]
        if live and self._send_live is None:
            raise BroadcastConfigError(f"{live[0].name} is live: give SessionBroadcasts a send_live")
        if recorded:
            # Already flushed; flushing within a flush is not allowed.
            self._outbox.record_sync(self._outbox.connection_of(session), recorded)
        pending.recorded += recorded
        pending.live += live

    def _after_commit(self, session: Session) -> None:
        if session.in_nested_transaction():
            return
        pending: _Pending = session.info.pop(self._key, _Pending())
        if pending.recorded:
            self._outbox.wake({envelope.queue for envelope in pending.recorded})
        if pending.live and self._send_live is not None:
            try:
                said = self._send_live(pending.live)
                if asyncio.iscoroutine(said):
                    self._begin(said, pending.live)
            except Exception as error:  # noqa: BLE001 - raised from here, a commit would look as if it had failed
                _report_lost(pending.live, error)

    def _begin(self, sending: Coroutine[Any, Any, object], live: Sequence[Envelope]) -> None:
        async def send() -> None:
            try:
                await sending
            except Exception as error:  # noqa: BLE001 - nothing waits for it
                _report_lost(live, error)

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            sending.close()
            raise RuntimeError("no event loop runs here; give send_live a SyncBroadcaster's send_envelopes") from None
        task = loop.create_task(send())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def _after_rollback(self, session: Session, ended: SessionTransaction) -> None:
        if ended.nested:
            pending = self._pending(session)
            pending.flushed = None
            pending.announced = [each for each in pending.announced if ended not in _around(each.within)]

    def _after_end(self, session: Session, ended: SessionTransaction) -> None:
        """Forget everything at the end of the transaction."""
        if ended.parent is None:
            session.info.pop(self._key, None)


def _report_lost(live: Sequence[Envelope], error: Exception) -> None:
    names = ", ".join(dict.fromkeys(envelope.name for envelope in live))
    _log.error("live events lost (%s): %s: %s", names, type(error).__name__, error)


def _log_gone(model: BroadcastsChanges, change: Change) -> None:
    _log.warning(
        "a row of %s was deleted before the commit: not announcing that it was %s", type(model).__name__, change
    )


def _load_before_deletion(session: Session, _: object, __: object) -> None:
    """Load the attributes of models to be deleted, since their payload may need them."""
    for model in session.deleted:
        state: Any = inspect(model)
        if isinstance(model, BroadcastsChanges) and "deleted" in model.broadcast_changes and state.expired_attributes:
            columns = state.expired_attributes & set(state.mapper.column_attrs.keys())
            with contextlib.suppress(ObjectDeletedError):  # gone already: there is nothing to load
                for name in sorted(columns)[:1]:  # loads them all
                    getattr(model, name)


def _plain(session: AnySession) -> Session:
    """Return the synchronous session. Raises TypeError for something else."""
    own: object = session() if isinstance(session, scoped_session | async_scoped_session) else session
    plain = own.sync_session if isinstance(own, AsyncSession) else own
    if not isinstance(plain, Session):
        raise TypeError(f"announce needs a session of SQLAlchemy first, then the event; not {type(own).__name__}")
    return plain


def _changes(session: Session) -> Iterator[tuple[BroadcastsChanges, Change]]:
    """Yield the inserted and updated models of a flush that broadcast those changes."""
    found: list[tuple[object, Change]] = [(model, "created") for model in session.new]
    found += [(model, "updated") for model in session.dirty if session.is_modified(model, include_collections=False)]
    for model, change in found:
        if isinstance(model, BroadcastsChanges) and change in model.broadcast_changes and inspect(model) is not None:
            yield model, change


def _around(within: SessionTransaction | None) -> Iterator[SessionTransaction]:
    """Yield a savepoint and those around it."""
    while within is not None:
        yield within
        within = within.parent
