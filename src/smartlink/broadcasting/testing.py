"""Public test helpers: fakes that keep broadcasts instead of sending them, and assertions about channel rules.

with fake_broadcasts(app.broadcaster) as broadcasts:
    await place_order()

broadcasts.assert_broadcast(OrderShipped, on=PrivateChannel("orders.1"), to_others=True)
broadcasts.assert_revoked(7, PrivateChannel("orders.1"))
assert_forbidden(rules, ben, PrivateChannel("orders.1"))

Check what an outbox has recorded, or send it first:

(await recorded_broadcasts(session, tables)).assert_broadcast(OrderShipped)
await deliver_recorded(engine, tables, app.broadcaster)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from smartlink.broadcasting.authorization import ChannelRules, Decision
from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.channels import Channel
from smartlink.broadcasting.drivers.connections import ConnectionRegistry
from smartlink.broadcasting.envelope import Delivery, Envelope
from smartlink.broadcasting.errors import BroadcastFailed, BroadcastUnavailable
from smartlink.broadcasting.events import BroadcastEvent
from smartlink.broadcasting.facade import BaseBroadcasting
from smartlink.broadcasting.outbox.relay import Relay
from smartlink.broadcasting.outbox.tables import OutboxTables
from smartlink.broadcasting.revocation import Revocation, revocation
from smartlink.broadcasting.sync import SyncBroadcaster

__all__ = [
    "Broadcasts",
    "FakeBroadcaster",
    "FakeDriver",
    "Recorded",
    "assert_authorized",
    "assert_authorized_async",
    "assert_forbidden",
    "assert_forbidden_async",
    "deliver_recorded",
    "fake_broadcasts",
    "recorded_broadcasts",
    "recorded_broadcasts_django",
    "recorded_broadcasts_sync",
]

Payload = Mapping[str, Any]


class FakeDriver:
    """Keeps envelopes, and revocations, in the order they were sent. Set `fails_with` to raise an error instead."""

    name = "fake"
    leaves_out_users = True
    reports_receipts = True

    def __init__(self) -> None:
        self.sent: list[Envelope] = []
        self.revoked: list[Revocation] = []
        self.idempotency_keys: list[str | None] = []
        self.fails_with: BroadcastFailed | None = None
        self._closed = False

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Keep the envelopes. Raises `fails_with`, if set, and BroadcastUnavailable after closing."""
        if self._closed:
            raise BroadcastUnavailable("the driver has been closed")
        if self.fails_with is not None:
            raise self.fails_with
        self.sent.extend(envelopes)
        self.idempotency_keys.append(idempotency_key)

    async def revoke(self, revocation: Revocation) -> None:
        """Keep the revocation. Raises like `send`."""
        if self._closed:
            raise BroadcastUnavailable("the driver has been closed")
        if self.fails_with is not None:
            raise self.fails_with
        self.revoked.append(revocation)

    async def aclose(self) -> None:
        """Refuse further envelopes, as a real driver does."""
        self._closed = True


class Broadcasts:
    """The events that were broadcast, with assertions.

    An event counts as broadcast when it reaches the driver, so one that was recorded and rolled back does not.
    """

    def __init__(self, driver: FakeDriver | None = None) -> None:
        self.fake_driver = driver or FakeDriver()
        self._classes: dict[tuple[str, str], set[type[BroadcastEvent]]] = {}
        self._to_others: set[tuple[str, str, str | None]] = set()

    @property
    def sent(self) -> tuple[Envelope, ...]:
        """Every envelope sent, in order."""
        return tuple(self.fake_driver.sent)

    def note(self, event: BroadcastEvent, envelopes: Sequence[Envelope], to_others: bool) -> None:
        """Record the class of envelopes, and whether they exclude the sender. Called by `Broadcaster.driven_by`."""
        for envelope in envelopes:
            self._classes.setdefault((envelope.channel, envelope.name), set()).add(type(event))
            if to_others:
                self._to_others.add((envelope.channel, envelope.name, envelope.socket_id))

    def assert_broadcast(
        self,
        event: type[BroadcastEvent] | str,
        *,
        on: Channel | str | None = None,
        to_others: bool | None = None,
        to_other_users: str | int | None = None,
        via: str | None = None,
        receipts: bool | None = None,
        times: int | None = None,
        where: Callable[[Payload], bool] | None = None,
    ) -> None:
        """Raise AssertionError, listing what was sent, unless `event` was broadcast.

        `event` is a class or a wire name, `on` a channel or its wire name. `to_others` requires that the sender's
        socket was, or was not, excluded; `to_other_users` that this user was; `receipts` that they were, or were not,
        asked for. `via` is a connection. `where` is called with the decoded payload. `times` counts envelopes, one for
        each channel.
        """
        found = [
            envelope
            for envelope in self.sent
            if self._is_of(event, envelope)
            and (on is None or envelope.channel == str(on))
            and (to_others is None or self._was_to_others(envelope) is to_others)
            and (to_other_users is None or envelope.except_user == str(to_other_users))
            and (via is None or envelope.connection == via)
            and (receipts is None or envelope.receipts is receipts)
            and (where is None or where(msgspec.json.decode(envelope.payload)))
        ]
        if (times is None and not found) or (times is not None and len(found) != times):
            wanted = [event if isinstance(event, str) else event.__name__]
            wanted += [f"on {on}"] if on is not None else []
            wanted += ["to others" if to_others else "to everyone"] if to_others is not None else []
            wanted += [f"but not to user {to_other_users}"] if to_other_users is not None else []
            wanted += [f"via {via}"] if via is not None else []
            wanted += ["with receipts" if receipts else "without receipts"] if receipts is not None else []
            wanted += ["with a matching payload"] if where is not None else []
            expected = "at least once" if times is None else f"{times} times"
            raise AssertionError(f"expected {' '.join(wanted)} {expected}, found {len(found)}; sent: {self._listing()}")

    def assert_not_broadcast(
        self,
        event: type[BroadcastEvent] | str,
        *,
        on: Channel | str | None = None,
        where: Callable[[Payload], bool] | None = None,
    ) -> None:
        """Raise AssertionError, listing what was sent, if `event` was broadcast."""
        self.assert_broadcast(event, on=on, where=where, times=0)

    def assert_nothing_broadcast(self) -> None:
        """Raise AssertionError, listing what was sent, if anything was."""
        if self.sent:
            raise AssertionError(f"expected no broadcast; sent: {self._listing()}")

    @property
    def revoked(self) -> tuple[Revocation, ...]:
        """Every revocation, in order."""
        return tuple(self.fake_driver.revoked)

    def assert_revoked(
        self,
        subject: str | int | Channel,
        /,
        channel: Channel | str | None = None,
        *,
        everyone: bool = False,
        reason: str | None = None,
    ) -> None:
        """Raise AssertionError, listing what was revoked, unless there was a `revoke` with these arguments.

        A user is given by id. Without `reason`, any reason will do.
        """
        wanted = revocation(subject, channel, everyone=everyone, reason=reason)
        found = (each if reason is not None else replace(each, reason=None) for each in self.revoked)
        if wanted not in found:
            because = f", because {reason!r}" if reason is not None else ""
            raise AssertionError(f"expected a revocation of {wanted}{because}; revoked: {self._revocations()}")

    def assert_nothing_revoked(self) -> None:
        """Raise AssertionError, listing what was revoked, if anything was."""
        if self.revoked:
            raise AssertionError(f"expected no revocation; revoked: {self._revocations()}")

    def _revocations(self) -> str:
        shown = [f"{each}{f', because {each.reason!r}' if each.reason else ''}" for each in self.revoked]
        return "; ".join(shown) or "nothing"

    def _is_of(self, event: type[BroadcastEvent] | str, envelope: Envelope) -> bool:
        if isinstance(event, str):
            return envelope.name == event
        classes = self._classes.get((envelope.channel, envelope.name), set())
        return any(issubclass(each, event) for each in classes)

    def _was_to_others(self, envelope: Envelope) -> bool:
        return (envelope.channel, envelope.name, envelope.socket_id) in self._to_others

    def _described(self, envelope: Envelope) -> str:
        to_others = " to others" if self._was_to_others(envelope) else ""
        without = f" but not to user {envelope.except_user}" if envelope.except_user is not None else ""
        via = f" via {envelope.connection}" if envelope.connection is not None else ""
        receipts = " with receipts" if envelope.receipts else ""
        return f"{envelope.name} on {envelope.channel}{to_others}{without}{via}{receipts}"

    def _listing(self) -> str:
        sent = ", ".join(map(self._described, self.sent)) or "nothing"
        kept = self._classes.keys() - {(envelope.channel, envelope.name) for envelope in self.sent}
        if not kept:
            return sent
        packed = ", ".join(f"{name} on {channel}" for channel, name in sorted(kept))
        return f"{sent}; packed, but not sent: {packed} (a worker, or deliver_recorded, sends recorded events)"


@contextmanager
def fake_broadcasts(broadcaster: Broadcaster | SyncBroadcaster | BaseBroadcasting) -> Iterator[Broadcasts]:
    """Keep everything sent within the block; nothing leaves the process, but events are packed for real.

    Payloads for encrypted channels are kept unencrypted. The result can be checked after the block too.
    """
    broadcasts = Broadcasts()
    with ExitStack() as stack:
        if isinstance(broadcaster, BaseBroadcasting):
            stack.enter_context(broadcaster.sync.broadcaster.driven_by(broadcasts.fake_driver))
        stack.enter_context(_plain(broadcaster).driven_by(broadcasts.fake_driver, broadcasts.note))
        yield broadcasts


def _plain(broadcaster: Broadcaster | SyncBroadcaster | BaseBroadcasting) -> Broadcaster:
    return broadcaster if isinstance(broadcaster, Broadcaster) else broadcaster.broadcaster


class Recorded(Broadcasts):
    """The events that an outbox has recorded, sent or not.

    The outbox stores names only, so a class is found by its class name, and one that overrides `broadcast_as` by its
    wire name.
    """

    def _is_of(self, event: type[BroadcastEvent] | str, envelope: Envelope) -> bool:
        if isinstance(event, str):
            return envelope.name == event
        return envelope.name.rpartition("\\")[2] == event.__name__

    def _was_to_others(self, envelope: Envelope) -> bool:
        return envelope.socket_id is not None


_KEPT = ("channel", "name", "payload", "socket_id", "delivery", "queue", "connection", "except_user", "receipts")


async def recorded_broadcasts(into: AsyncSession | AsyncConnection, tables: OutboxTables) -> Recorded:
    """Return the recorded events that `into`'s transaction sees, in order, including its own uncommitted ones."""
    return await into.run_sync(recorded_broadcasts_sync, tables)


def recorded_broadcasts_sync(into: Session | Connection, tables: OutboxTables) -> Recorded:
    """Return the same as `recorded_broadcasts`, for synchronous sessions and connections."""
    events = tables.recorded_events
    return _recorded(into.execute(select(*(events.c[name] for name in _KEPT)).order_by(events.c.id)))


def recorded_broadcasts_django(using: str = "default") -> Recorded:
    """Return the same as `recorded_broadcasts`, over Django's connection `using`, in a `TestCase`'s transaction too."""
    from django.db import connections

    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(_KEPT)} FROM recorded_events ORDER BY id")  # noqa: S608 - names of ours
        return _recorded(cursor.fetchall())


def _recorded(rows: Iterable[Sequence[Any]]) -> Recorded:
    recorded = Recorded()
    for channel, name, payload, socket_id, delivery, queue, connection, except_user, receipts in rows:
        envelope = Envelope(channel, name, payload, socket_id, Delivery(delivery), queue)
        recorded.fake_driver.sent.append(
            replace(envelope, connection=connection, except_user=except_user, receipts=bool(receipts))
        )
    return recorded


async def deliver_recorded(
    engine: AsyncEngine, tables: OutboxTables, broadcaster: Broadcaster | SyncBroadcaster | BaseBroadcasting
) -> int:
    """Send the recorded events that are waiting, as a worker would, and return how many were sent.

    Within `fake_broadcasts` they go to the fake. Events that another worker holds are skipped; no lease is kept
    afterwards. Raises what the database raises.
    """
    relay = Relay(engine, tables, _plain(broadcaster).driver)
    try:
        return await relay.run_once()
    finally:
        await relay.release()


class FakeBroadcaster(Broadcaster, Broadcasts):
    """A broadcaster that never sends: pass it to code that needs one."""

    def __init__(self, namespace: str = "App\\Events\\", max_data_bytes: int = 10_240) -> None:
        Broadcasts.__init__(self)
        Broadcaster.__init__(self, self.fake_driver, namespace, max_data_bytes)
        self._connections = ConnectionRegistry.all_through(self.fake_driver)
        self._watch = self.note


def assert_authorized(rules: ChannelRules, user: object, channel: Channel | str) -> Decision:
    """Raise AssertionError, with the reason, unless `user` may subscribe to `channel`; return the decision.

    For synchronous tests; async rules run in an event loop of their own.
    """
    return _authorized(rules.decide_sync(user, str(channel)), user, channel)


def assert_forbidden(rules: ChannelRules, user: object, channel: Channel | str) -> Decision:
    """Raise AssertionError, with the rule that allows it, if `user` may subscribe to `channel`; return the decision."""
    return _forbidden(rules.decide_sync(user, str(channel)), user, channel)


async def assert_authorized_async(rules: ChannelRules, user: object, channel: Channel | str) -> Decision:
    """Same as `assert_authorized`, for async tests."""
    return _authorized(await rules.decide(user, str(channel)), user, channel)


async def assert_forbidden_async(rules: ChannelRules, user: object, channel: Channel | str) -> Decision:
    """Same as `assert_forbidden`, for async tests."""
    return _forbidden(await rules.decide(user, str(channel)), user, channel)


def _authorized(decision: Decision, user: object, channel: Channel | str) -> Decision:
    if not decision.allowed:
        by = f" ({decision.rule})" if decision.rule else ""
        raise AssertionError(f"expected {user!r} on {channel}, but {decision.why}{by}")
    return decision


def _forbidden(decision: Decision, user: object, channel: Channel | str) -> Decision:
    if decision.allowed:
        raise AssertionError(f"expected {user!r} to be denied {channel}, but {decision.why} ({decision.rule})")
    return decision
