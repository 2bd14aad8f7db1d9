"""The worker hub: the engines of one process, used by all workers of a machine.

Every worker is a `WorkerPeer`. The hub carries out what a worker sends in the order in which it was sent, and forwards
each publication unchanged to the workers that subscribed to its channel. So all workers see one order per channel, and
counts include all of them. Joins and leaves that are to be announced take turns (see `turns`).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from inspect import iscoroutinefunction
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import msgspec
import structlog

from smartlink.protocol.names import is_counted
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import Broker, Control, Publication
from smartlink.server.cluster.brokers.log import ChannelLog
from smartlink.server.cluster.history.base import History
from smartlink.server.cluster.idempotency.base import IdempotencyStore
from smartlink.server.cluster.presence.base import Arrival, Change, Departure, PresenceStore
from smartlink.server.cluster.sessions.base import SessionStore
from smartlink.server.cluster.sessions.memory import TAKEN_S
from smartlink.server.runtime.metrics import counters_only, merge
from smartlink.server.runtime.rates import MachineOverview, Totals
from smartlink.server.webhooks.base import OutgoingEvent, vacated
from smartlink.server.workers import messages
from smartlink.server.workers.calls import ERRORS, Signature, UnknownCall, WebhookRelay, signature
from smartlink.server.workers.order import Ordered, ordering_pair
from smartlink.server.workers.peer import Entry, WorkerPeer
from smartlink.server.workers.turns import ChannelTurns

__all__ = ["LocalNode", "WorkerHub"]

MAX_HELD = 100_000
"""Joins and leaves of one worker that may wait for their turn; beyond, its link is closed."""

T = TypeVar("T")
Key = tuple[str, str]
log = structlog.get_logger(__name__)

_DECLARED_ERRORS: Final = tuple(ERRORS.values())
_TAKE_TURNS: Final[frozenset[Callable[..., Any]]] = frozenset({PresenceStore.join, PresenceStore.leave})
_Operation: TypeAlias = tuple[int, Signature, tuple[Any, ...]]
"""The number, method and arguments of a call."""


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine of a memory engine, which never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("an engine behind the worker hub waited")


class LocalNode(Protocol):
    """A node in the hub's own process."""

    def deliver(self, publication: Publication | Control) -> None: ...

    def on_change(self, change: Change) -> None: ...

    def is_subscribed(self, app_id: str, channel: str) -> bool: ...


class WorkerHub:
    """Joins the workers of a machine.

    The engines must never wait. `emit(app_id, event)` takes webhook events.
    """

    def __init__(
        self,
        *,
        presence: PresenceStore,
        history: History,
        idempotency: IdempotencyStore,
        sessions: SessionStore,
        log: ChannelLog | None = None,
        emit: Callable[[str, OutgoingEvent], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.presence = presence
        self.history = history
        self.idempotency = idempotency
        self.sessions = sessions
        self.log = ChannelLog() if log is None else log
        self.emit = emit
        self.local_node: LocalNode | None = None
        self.local_connections: dict[str, int] = {}
        self.local_sessions: Callable[[str, str], bytes | None] = lambda _app_id, _name: None
        """Gives up an open session of the local node."""
        self.local_figures: Callable[[], dict[str, float]] | None = None
        """The figures of the local node, if there is one."""
        self.own_figures: Callable[[], dict[str, float]] = dict
        """Other figures of this process."""
        self.on_told: Callable[[bytes], None] | None = None
        """Called with what operators' watches collected."""
        self._past: dict[str, float] = {}
        """Counters of workers that are gone: totals must not go down."""
        self.peers: dict[WorkerPeer, None] = {}
        self._now = now
        self._started_at = now()
        self._routes: dict[Key, dict[WorkerPeer, None]] = {}
        """By channel: the workers that subscribed to it."""
        self._turns: ChannelTurns[WorkerPeer, _Operation] = ChannelTurns(self._run_held, now)
        self._ordered: tuple[Ordered, socket.socket] | None = None
        """Where publications of all workers arrive in order, and the end that workers inherit."""
        self._held: list[tuple[float, WorkerPeer, Entry, PresenceMember | None]] = []
        """Entries of dead workers, and until when they stay."""
        self._unsent: set[str] = set()
        """Apps whose connection counts changed in this turn of the loop."""
        self._actions: dict[type[Any], Callable[[WorkerPeer, Any], None]] = {
            messages.Hello: self._hello,
            messages.Ready: self._ready,
            messages.StartFailed: self._start_failed,
            messages.WorkerReport: self._report,
            messages.Settled: lambda peer, settled: self._turns.settle(peer, settled.turn),
            messages.Call: self._call,
            messages.OperatorAnswer: lambda peer, answer: peer.answered(answer.number, answer.answer),
            messages.OperatorTold: self._told,
        }
        self._engines: dict[str, object] = {
            PresenceStore.__name__: presence,
            History.__name__: history,
            IdempotencyStore.__name__: idempotency,
            SessionStore.__name__: sessions,
        }
        """By port."""
        self._methods: dict[Callable[..., Any], Callable[..., Any]] = {
            Broker.subscribe: self._subscribe,
            Broker.unsubscribe: self._unsubscribe,
            Broker.retain: lambda _, *arguments: self.log.retain(*arguments),
            Broker.replay: lambda _, *arguments: self.log.replay(*arguments),
            PresenceStore.join: self._join,
            PresenceStore.leave: self._leave,
            PresenceStore.nodes: lambda _: self.workers(),
            PresenceStore.report_connections: self._report_connections,
            PresenceStore.stop: self._withdraw,
            SessionStore.take: self._take_session,
            IdempotencyStore.claim: self._claim,
            IdempotencyStore.complete: self._complete,
            IdempotencyStore.release: self._release,
            MachineOverview.totals: lambda _: self.totals(),
            WebhookRelay.emit: lambda _, app_id, event: self.emit(app_id, event),
        }
        """Calls that concern the worker itself, and get its peer first. All others go to the engines."""

    def peer(self, end: socket.socket) -> WorkerPeer:
        """Add a worker whose link has its other end at `end`."""
        peer = WorkerPeer(self, end)
        self.peers[peer] = None
        return peer

    def order_end(self) -> socket.socket:
        """Return the end of the socket that orders publications, for a worker to inherit. It stays the hub's."""
        if self._ordered is None:
            here, there = ordering_pair()
            self._ordered = Ordered(here, self._take), there
        return self._ordered[1]

    def take_ordered(self) -> None:
        """Forward what workers have published by now."""
        if self._ordered is not None:
            self._ordered[0].read()

    def close(self) -> None:
        """Close the socket that orders publications. No worker may be left."""
        if self._ordered is not None:
            ordered, end = self._ordered
            self._ordered = None
            ordered.close()
            end.close()

    def act(self, peer: WorkerPeer, message: messages.FromWorker, record: bytes) -> None:
        """Carry out a worker's record. Raises UnknownCall, and DecodeError for the arguments of a call."""
        if isinstance(message, messages.ForwardedPublication):
            self._forward(message, record)
            if message.number:
                peer.send(messages.Accepted(message.number))
        elif isinstance(message, messages.ForwardedControl):
            for other in self.peers:
                other.stream.send(record)
            if self.local_node is not None:
                self.local_node.deliver(messages.forwarded(message))
            if message.number:
                peer.send(messages.Accepted(message.number))
        else:
            self._actions[type(message)](peer, message)

    def leave(self, peer: WorkerPeer) -> None:
        """Remove a worker that is gone, with its entries, some after their grace. One of the others announces that."""
        if self.peers.pop(peer, 0) == 0:
            return
        self.take_ordered()
        self._past = merge((self._past, counters_only(peer.figures)))
        for key in peer.subscriptions:
            self._unroute(peer, key)
        peer.subscriptions.clear()
        for entry, grace_s in peer.graces.items():
            self._held.append((self._now() + grace_s, peer, entry, peer.entries.pop(entry)))
        self._withdraw(peer)
        self._turns.settle_all(peer)
        for app_id, claim in peer.claims:
            _now(self.idempotency.release(app_id, claim))
        for app_id in peer.connections:
            self._count_changed(app_id)

    def route(self, publication: Publication | Control) -> None:
        """Send the workers what the local node publishes. What they have published before must have been taken."""
        if isinstance(publication, Control):
            peers = self.peers
        else:
            peers = self._routes.get((publication.app_id, publication.channel), {})
        if peers:
            record = messages.encode(messages.forward(publication))
            for peer in peers:
                peer.stream.send(record)

    def report_local_connections(self, app_id: str, connections: int) -> None:
        """Note how many connections the local node has."""
        self.local_connections[app_id] = connections
        self._count_changed(app_id)

    def connections_elsewhere(self, app_id: str, but: WorkerPeer | None = None) -> int:
        """Count the app's connections on all nodes but one: the worker `but`, or else the local node."""
        others = sum(peer.connections.get(app_id, 0) for peer in self.peers if peer is not but)
        return others if but is None else others + self.local_connections.get(app_id, 0)

    def workers(self) -> int:
        """Count the workers that serve now, and the local node."""
        return sum(peer.is_ready and not peer.is_leaving for peer in self.peers) + (self.local_figures is not None)

    def totals(self) -> Totals:
        """Add up the figures of all workers."""
        sources = [self._past, self.own_figures(), *(peer.figures for peer in self.peers)]
        if self.local_figures is not None:
            sources.append(self.local_figures())
        return Totals(self.workers(), self._now() - self._started_at, merge(sources))

    def leave_local(self) -> None:
        """Note that the local node serves no more; its counters stay."""
        if self.local_figures is not None:
            self._past = merge((self._past, counters_only(self.local_figures())))
            self.local_figures = None

    def sweep(self, now: float) -> None:
        """Called each second: end turns that no worker settles, and stays whose grace is over."""
        self._turns.expire(now)
        due = [held for held in self._held if held[0] <= now]
        if due:
            self._held = [held for held in self._held if held[0] > now]
        for _, peer, entry, member in due:
            self._remove({entry: member}, but=peer)

    # Workers

    def _hello(self, peer: WorkerPeer, hello: messages.Hello) -> None:
        peer.pid = hello.pid
        if hello.version != messages.VERSION:
            peer.failure = (
                f"worker protocol version mismatch: the worker has version {hello.version}, its parent "
                f"{messages.VERSION}; stop the server and start it again"
            )
            peer.close()
            return
        for app_id in {app_id for other in self.peers for app_id in other.connections} | self.local_connections.keys():
            peer.send(messages.ConnectionsElsewhere(app_id, self.connections_elsewhere(app_id, peer)))

    def _ready(self, peer: WorkerPeer, _: messages.Ready) -> None:
        peer.is_ready = True
        peer.has_changed.set()

    def _start_failed(self, peer: WorkerPeer, failed: messages.StartFailed) -> None:
        peer.failure = failed.reason
        peer.has_changed.set()

    def _report(self, peer: WorkerPeer, report: messages.WorkerReport) -> None:
        peer.figures = report.figures

    def _told(self, _: WorkerPeer, told: messages.OperatorTold) -> None:
        if self.on_told is not None:
            self.on_told(told.told)

    # Publications

    def _take(self, record: bytes) -> None:
        """Forward a record of the socket that orders publications."""
        try:
            message = messages.from_worker(record)
        except msgspec.DecodeError as error:
            log.error("invalid publication of a worker: dropped", problem=str(error)[:200])
            return
        if isinstance(message, messages.ForwardedPublication):
            self._forward(message, record)

    def _forward(self, message: messages.ForwardedPublication, record: bytes) -> None:
        if message.retention is not None:
            kept = self.log.append(messages.forwarded_publication(message))
            if kept.position:
                message = messages.forward_publication(kept)
                record = messages.encode(message)
        peers = self._routes.get((message.app_id, message.channel))
        if peers:
            for peer in peers:
                peer.stream.send(record)
        local_node = self.local_node
        if local_node is not None and local_node.is_subscribed(message.app_id, message.channel):
            local_node.deliver(messages.forwarded(message))

    def _subscribe(self, peer: WorkerPeer, app_id: str, channel: str) -> None:
        key = (app_id, channel)
        peer.subscriptions.add(key)
        self._routes.setdefault(key, {})[peer] = None

    def _unsubscribe(self, peer: WorkerPeer, app_id: str, channel: str) -> None:
        key = (app_id, channel)
        if key in peer.subscriptions:
            peer.subscriptions.discard(key)
            self._unroute(peer, key)

    def _unroute(self, peer: WorkerPeer, key: Key) -> None:
        peers = self._routes[key]
        peers.pop(peer, None)
        if not peers:
            del self._routes[key]

    # Calls

    def _call(self, peer: WorkerPeer, call: messages.Call) -> None:
        called = signature(call.port, call.method)
        operation = (call.number, called, called.decode_arguments(call.arguments))
        if called.function not in _TAKE_TURNS:
            self._carry_out(peer, operation)
            return
        app_id, channel, *_ = operation[2]
        self._turns.submit(peer, (app_id, channel), operation)
        if peer.held > MAX_HELD:
            log.error("too many calls of a worker wait for their turn: closing its link", pid=peer.pid)
            asyncio.get_running_loop().call_soon(peer.close)

    def _carry_out(self, peer: WorkerPeer, operation: _Operation) -> None:
        number, called, arguments = operation
        try:
            if (method := self._methods.get(called.function)) is not None:
                result = method(peer, *arguments)
            elif (engine := self._engines.get(called.port)) is not None and iscoroutinefunction(called.function):
                result = _now(getattr(engine, called.method)(*arguments))
            else:
                raise UnknownCall(f"{called.port}.{called.method}")
        except _DECLARED_ERRORS as error:
            if number:
                peer.send(messages.ErrorReply(number, type(error).__name__))
            return
        turn = self._turns.take(peer, arguments[:2]) if _is_announced(result) else 0
        if number:
            peer.send(messages.Reply(number, msgspec.Raw(messages.encode(result)), turn))

    def _run_held(self, peer: WorkerPeer, operation: _Operation) -> None:
        if peer.is_open:
            self._carry_out(peer, operation)

    def _join(
        self, peer: WorkerPeer, app_id: str, channel: str, socket_id: str, member: PresenceMember | None, grace_s: int
    ) -> Arrival:
        arrival = _now(self.presence.join(app_id, channel, socket_id, member))
        if member is not None and arrival.is_number is not None:
            member = replace(member, is_number=arrival.is_number)
        peer.entries.setdefault((app_id, channel, socket_id), member)
        if grace_s:
            peer.graces[app_id, channel, socket_id] = grace_s
        return replace(arrival, data=None)

    def _leave(self, peer: WorkerPeer, app_id: str, channel: str, socket_id: str) -> Departure:
        departure = _now(self.presence.leave(app_id, channel, socket_id))
        peer.entries.pop((app_id, channel, socket_id), None)
        peer.graces.pop((app_id, channel, socket_id), None)
        return departure

    def _take_session(self, _: WorkerPeer, app_id: str, name: str, owner: str) -> bytes | None:
        held = self.local_sessions(app_id, name)
        stored: bytes | None = _now(self.sessions.take(app_id, name, owner))
        if held is None:
            return stored
        _now(self.sessions.save(app_id, name, owner, held, TAKEN_S))
        return held

    def _claim(self, peer: WorkerPeer, app_id: str, key: str) -> bytes | None:
        answer = _now(self.idempotency.claim(app_id, key))
        if answer is None:
            peer.claims.add((app_id, key))
        return answer

    def _complete(self, peer: WorkerPeer, app_id: str, key: str, answer: bytes) -> None:
        peer.claims.discard((app_id, key))
        _now(self.idempotency.complete(app_id, key, answer))

    def _release(self, peer: WorkerPeer, app_id: str, key: str) -> None:
        peer.claims.discard((app_id, key))
        _now(self.idempotency.release(app_id, key))

    def _report_connections(self, peer: WorkerPeer, app_id: str, connections: int) -> None:
        peer.connections[app_id] = connections
        self._count_changed(app_id)

    def _count_changed(self, app_id: str) -> None:
        if not self.peers:
            return  # A new worker gets the counts after its Hello.
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send_counts)
        self._unsent.add(app_id)

    def _send_counts(self) -> None:
        for app_id in self._unsent:
            for peer in self.peers:
                peer.send(messages.ConnectionsElsewhere(app_id, self.connections_elsewhere(app_id, peer)))
        self._unsent.clear()

    # What a worker leaves behind

    def _withdraw(self, peer: WorkerPeer) -> None:
        """Take a worker's entries out of the presence store, and have the changes announced."""
        entries, peer.entries, peer.graces = peer.entries, {}, {}
        self._remove(entries, but=peer)

    def _remove(self, entries: dict[Entry, PresenceMember | None], but: WorkerPeer) -> None:
        changes: dict[Key, tuple[list[PresenceMember], Departure]] = {}
        for (app_id, channel, socket_id), member in entries.items():
            departure = _now(self.presence.leave(app_id, channel, socket_id))
            removed = changes[app_id, channel][0] if (app_id, channel) in changes else []
            if member is not None and departure.is_last_of_user:
                removed.append(member)
            changes[app_id, channel] = (removed, departure)
        for (app_id, channel), (removed, last) in changes.items():
            if removed or last.is_last_on_channel or is_counted(channel):
                change = Change(
                    app_id,
                    channel,
                    removed=tuple(removed),
                    is_vacated=last.is_last_on_channel,
                    version=last.version,
                )
                self._announce(change, but)

    def _announce(self, change: Change, but: WorkerPeer) -> None:
        """Have one node announce a change; when none is left, notify webhooks only."""
        for peer in self.peers:
            if peer.is_ready and not peer.is_leaving and peer is not but:
                peer.send(messages.PresenceChange(change, self._turns.take(peer, (change.app_id, change.channel))))
                return
        if self.local_node is not None:
            self.local_node.on_change(change)
            return
        for member in change.removed:
            self.emit(change.app_id, OutgoingEvent("member_removed", change.channel, member.user_id))
        if change.is_vacated and (event := vacated(change.channel)) is not None:
            self.emit(change.app_id, event)


def _is_announced(result: object) -> bool:
    """Whether the worker is to announce what its call changed."""
    match result:
        case Arrival():
            return result.is_first_of_user or result.is_first_on_channel
        case Departure():
            return result.is_last_of_user or result.is_last_on_channel
        case _:
            return False
