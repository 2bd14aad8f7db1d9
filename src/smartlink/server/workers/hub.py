"""The worker hub: the engines of one process, used by all workers of a machine.

Every worker is a `WorkerPeer`. What it says is carried out in the order it says it; a publication goes on to the peers
that subscribed to its channel, as it came. So all workers see one order per channel, and counts are of all of them.

A join or leave that lets its worker announce something (first or last of a user, or of a channel) takes the channel's
turn: until the worker has said so, or `TURN_S` have gone by, other workers' joins and leaves there wait. Else a
`member_removed` could overtake the `member_added` of a return.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from smartlink.protocol.names import is_counted
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import Control, Publication
from smartlink.server.cluster.history.base import History, HistoryEntry
from smartlink.server.cluster.idempotency.base import CallUnderWay, IdempotencyStore
from smartlink.server.cluster.presence.base import Change, Departure, PresenceStore
from smartlink.server.runtime.metrics import counters_only, merge
from smartlink.server.runtime.rates import Totals
from smartlink.server.webhooks.base import OutgoingEvent, vacated
from smartlink.server.workers import messages as say
from smartlink.server.workers.stream import RecordStream

__all__ = ["Home", "WorkerHub", "WorkerPeer"]

TURN_S = 2.0
MAX_HELD = 100_000
"""Joins and leaves of one seat that may wait for their turn; beyond, the seat is given up."""

T = TypeVar("T")
Key = tuple[str, str]
log = structlog.get_logger(__name__)


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine of a memory engine: it never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("an engine behind the switchboard waited")


class Home(Protocol):
    """A node in the switchboard's own process."""

    def deliver(self, publication: Publication | Control) -> None: ...

    def on_change(self, change: Change) -> None: ...

    def is_subscribed(self, app_id: str, channel: str) -> bool: ...


class WorkerPeer:
    """One worker, as the switchboard sees it."""

    def __init__(self, worker_hub: WorkerHub, end: socket.socket) -> None:
        self._worker_hub = worker_hub
        self.stream = RecordStream(end, self._on_record, self._on_end)
        self.pid = 0
        self.is_ready = False
        self.is_leaving = False
        """It drains: whatever is to be announced goes to another one."""
        self.failure: str | None = None
        self.heard_at = time.monotonic()
        self.figures: dict[str, float] = {}
        self.connections: dict[str, int] = {}
        self.subscriptions: set[Key] = set()
        self.entries: dict[tuple[str, str, str], PresenceMember | None] = {}
        """What it entered into the roster: app, channel, socket id."""
        self.claims: set[tuple[str, str]] = set()
        """Calls it carries out now: app and key."""
        self.turns: dict[int, Key] = {}
        """Turns it has not ended yet, oldest first."""
        self.held = 0
        self._turn = 0
        self.has_changed = asyncio.Event()
        """Set when it became ready, failed or ended."""

    @property
    def is_open(self) -> bool:
        return self.stream.is_open

    def say(self, message: msgspec.Struct) -> None:
        self.stream.send(say.encode(message))

    def next_turn(self, key: Key) -> int:
        self._turn += 1
        self.turns[self._turn] = key
        return self._turn

    def close(self) -> None:
        self.stream.close()

    def _on_record(self, record: bytes) -> None:
        self.heard_at = time.monotonic()
        try:
            message = say.from_worker(record)
        except msgspec.DecodeError as error:
            log.error("a worker speaks another language: its connection ends", pid=self.pid, problem=str(error)[:200])
            self.close()
            return
        self._worker_hub.act(self, message, record)

    def _on_end(self) -> None:
        self._worker_hub.leave(self)
        self.has_changed.set()


class WorkerHub:
    """Joins the workers of a machine. `engines` never wait; `tell` takes webhook events, named by app id."""

    def __init__(
        self,
        *,
        presence: PresenceStore,
        history: History,
        idempotency: IdempotencyStore,
        tell: Callable[[str, OutgoingEvent], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.presence = presence
        self.history = history
        self.idempotency = idempotency
        self.tell = tell
        self.home: Home | None = None
        self.home_connections: dict[str, int] = {}
        self.home_figures: Callable[[], dict[str, float]] | None = None
        self.own_figures: Callable[[], dict[str, float]] = dict
        """What this process has to tell beside its node, if it has one."""
        self._past: dict[str, float] = {}
        """What workers had counted that are no more: totals must not go down."""
        self.peers: dict[WorkerPeer, None] = {}
        self._now = now
        self._started_at = now()
        self._routes: dict[Key, dict[WorkerPeer, None]] = {}
        self._turns: dict[Key, tuple[WorkerPeer, int, float]] = {}
        self._held: dict[Key, deque[tuple[WorkerPeer, say.Join | say.Leave]]] = {}
        self._unsaid: set[str] = set()
        self._actions: dict[type[msgspec.Struct], Callable[[WorkerPeer, Any], None]] = {
            say.Hello: self._hello,
            say.Ready: self._ready,
            say.Failed: self._failed,
            say.Report: self._report,
            say.Subscribe: self._subscribe,
            say.Unsubscribe: self._unsubscribe,
            say.Join: self._in_turn,
            say.Leave: self._in_turn,
            say.Settled: self._settled,
            say.Members: self._members,
            say.Count: self._count,
            say.Describe: self._describe,
            say.Channels: self._channels,
            say.Workers: self._workers,
            say.Connections: self._connections,
            say.Withdraw: lambda peer, _: self._withdraw(peer),
            say.Append: self._append,
            say.Latest: self._latest,
            say.Since: self._since,
            say.Claim: self._claim,
            say.Complete: self._complete,
            say.Release: self._release,
            say.Tell: lambda _, message: self.tell(message.app_id, message.event),
            say.TotalsAsked: self._totals,
        }

    def peer(self, end: socket.socket) -> WorkerPeer:
        """Take in a worker that speaks at the other end of `end`."""
        peer = WorkerPeer(self, end)
        self.peers[peer] = None
        return peer

    def act(self, peer: WorkerPeer, message: say.FromWorker, record: bytes) -> None:
        """Carry out what a worker said."""
        if isinstance(message, say.Publish):
            self._hand_on(message, record)
            if message.id:
                peer.say(say.Accepted(message.id))
        elif isinstance(message, say.Signal):
            for other in self.peers:
                other.stream.send(record)
            if self.home is not None:
                self.home.deliver(Control(message.app_id, message.action, message.target, message.data))
            if message.id:
                peer.say(say.Accepted(message.id))
        else:
            self._actions[type(message)](peer, message)

    def leave(self, peer: WorkerPeer) -> None:
        """A worker is gone: so is all it entered. One of the others announces it."""
        if self.peers.pop(peer, 0) == 0:
            return
        self._past = merge((self._past, counters_only(peer.figures)))
        for key in peer.subscriptions:
            self._unroute(peer, key)
        peer.subscriptions.clear()
        self._withdraw(peer)
        self._end_turns(peer, len(peer.turns))
        for app_id, claim in peer.claims:
            _now(self.idempotency.release(app_id, claim))
        for app_id in peer.connections:
            self._count_changed(app_id)

    def route(self, publication: Publication | Control) -> None:
        """Send what this process's own node publishes to the workers."""
        if isinstance(publication, Control):
            record = say.encode(
                say.Signal(0, publication.app_id, publication.action, publication.target, publication.data)
            )
            for peer in self.peers:
                peer.stream.send(record)
            return
        peers = self._routes.get((publication.app_id, publication.channel))
        if peers:
            record = say.encode(
                say.Publish(
                    0,
                    publication.app_id,
                    publication.channel,
                    publication.frame,
                    publication.except_socket,
                    publication.is_live,
                    publication.version,
                )
            )
            for peer in peers:
                peer.stream.send(record)

    def report_home(self, app_id: str, connections: int) -> None:
        """This process's own node has so many connections now."""
        self.home_connections[app_id] = connections
        self._count_changed(app_id)

    def connections_elsewhere(self, app_id: str, but: WorkerPeer | None = None) -> int:
        """Connections of the app at every worker but one; without `but`: at all but this process's own node."""
        others = sum(peer.connections.get(app_id, 0) for peer in self.peers if peer is not but)
        return others if but is None else others + self.home_connections.get(app_id, 0)

    def workers(self) -> int:
        """How many serve now."""
        return sum(peer.is_ready and not peer.is_leaving for peer in self.peers) + (self.home_figures is not None)

    def totals(self) -> Totals:
        """The figures of all workers."""
        sources = [self._past, self.own_figures(), *(peer.figures for peer in self.peers)]
        if self.home_figures is not None:
            sources.append(self.home_figures())
        return Totals(self.workers(), self._now() - self._started_at, merge(sources))

    def leave_home(self) -> None:
        """The server of this very process serves no more; what it has counted stays."""
        if self.home_figures is not None:
            self._past = merge((self._past, counters_only(self.home_figures())))
            self.home_figures = None

    def sweep(self, now: float) -> None:
        """Called each second: a turn that nobody ends is over."""
        for key in [key for key, (_, _, since) in self._turns.items() if now - since > TURN_S]:
            del self._turns[key]
            self._go_on(key)

    # Workers

    def _hello(self, peer: WorkerPeer, hello: say.Hello) -> None:
        peer.pid = hello.pid
        if hello.version != say.VERSION:
            peer.failure = (
                f"its switchboard speaks version {hello.version}, the running one {say.VERSION}: stop and start instead"
            )
            peer.close()
            return
        for app_id in {app_id for other in self.peers for app_id in other.connections} | self.home_connections.keys():
            peer.say(say.Elsewhere(app_id, self.connections_elsewhere(app_id, peer)))

    def _ready(self, peer: WorkerPeer, _: say.Ready) -> None:
        peer.is_ready = True
        peer.has_changed.set()

    def _failed(self, peer: WorkerPeer, failed: say.Failed) -> None:
        peer.failure = failed.reason
        peer.has_changed.set()

    def _report(self, peer: WorkerPeer, report: say.Report) -> None:
        peer.figures = report.figures

    # Publications

    def _hand_on(self, message: say.Publish, record: bytes) -> None:
        peers = self._routes.get((message.app_id, message.channel))
        if peers:
            for peer in peers:
                peer.stream.send(record)
        home = self.home
        if home is not None and home.is_subscribed(message.app_id, message.channel):
            home.deliver(
                Publication(
                    message.app_id,
                    message.channel,
                    message.frame,
                    message.except_socket,
                    message.is_live,
                    message.version,
                )
            )

    def _subscribe(self, peer: WorkerPeer, message: say.Subscribe) -> None:
        key = (message.app_id, message.channel)
        peer.subscriptions.add(key)
        self._routes.setdefault(key, {})[peer] = None

    def _unsubscribe(self, peer: WorkerPeer, message: say.Unsubscribe) -> None:
        key = (message.app_id, message.channel)
        if key in peer.subscriptions:
            peer.subscriptions.discard(key)
            self._unroute(peer, key)

    def _unroute(self, peer: WorkerPeer, key: Key) -> None:
        peers = self._routes[key]
        peers.pop(peer, None)
        if not peers:
            del self._routes[key]

    # Roster

    def _in_turn(self, peer: WorkerPeer, message: say.Join | say.Leave) -> None:
        key = (message.app_id, message.channel)
        turn = self._turns.get(key)
        if key in self._held or (turn is not None and turn[0] is not peer):
            self._held.setdefault(key, deque()).append((peer, message))
            peer.held += 1
            if peer.held > MAX_HELD:
                log.error("a worker asks more than can be held: its connection ends", pid=peer.pid)
                asyncio.get_running_loop().call_soon(peer.close)
            return
        self._carry_out(peer, message)

    def _carry_out(self, peer: WorkerPeer, message: say.Join | say.Leave) -> None:
        key = (message.app_id, message.channel)
        entry = (*key, message.socket_id)
        turn = 0
        if isinstance(message, say.Join):
            arrival = _now(self.presence.join(*entry, message.member))
            member = message.member
            if member is not None and arrival.is_number is not None:
                member = replace(member, is_number=arrival.is_number)
            peer.entries.setdefault(entry, member)
            members = arrival.members or None
            if arrival.is_first_of_user or arrival.is_first_on_channel:
                turn = self._take_turn(peer, key)
            peer.say(say.Arrived(message.id, replace(arrival, members=()), members, turn))
        else:
            departure = _now(self.presence.leave(*entry))
            peer.entries.pop(entry, None)
            if departure.is_last_of_user or departure.is_last_on_channel:
                turn = self._take_turn(peer, key)
            peer.say(say.Departed(message.id, departure, turn))

    def _take_turn(self, peer: WorkerPeer, key: Key) -> int:
        turn = peer.next_turn(key)
        self._turns[key] = (peer, turn, self._now())
        return turn

    def _settled(self, peer: WorkerPeer, settled: say.Settled) -> None:
        count = 0
        for turn in peer.turns:
            if turn > settled.turn:
                break
            count += 1
        self._end_turns(peer, count)

    def _end_turns(self, peer: WorkerPeer, count: int) -> None:
        for turn in list(itertools.islice(peer.turns, count)):
            key = peer.turns.pop(turn)
            current = self._turns.get(key)
            if current is not None and current[0] is peer and current[1] == turn:
                del self._turns[key]
                self._go_on(key)

    def _go_on(self, key: Key) -> None:
        """Carry out what waited for the channel's turn, until somebody else has it."""
        held = self._held.get(key)
        if held is None:
            return
        while held:
            peer, message = held[0]
            turn = self._turns.get(key)
            if turn is not None and turn[0] is not peer:
                return
            held.popleft()
            peer.held -= 1
            if peer.is_open:
                self._carry_out(peer, message)
        del self._held[key]

    def _withdraw(self, peer: WorkerPeer) -> None:
        entries, peer.entries = peer.entries, {}
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
                self._announce(change, but=peer)

    def _announce(self, change: Change, but: WorkerPeer) -> None:
        """Have one node announce a change; with nobody left, only webhooks are to hear of it."""
        for peer in self.peers:
            if peer.is_ready and not peer.is_leaving and peer is not but:
                peer.say(say.Changed(change, self._take_turn(peer, (change.app_id, change.channel))))
                return
        if self.home is not None:
            self.home.on_change(change)
            return
        for member in change.removed:
            self.tell(change.app_id, OutgoingEvent("member_removed", change.channel, member.user_id))
        if change.is_vacated and (event := vacated(change.channel)) is not None:
            self.tell(change.app_id, event)

    def _members(self, peer: WorkerPeer, message: say.Members) -> None:
        state = _now(self.presence.state(message.app_id, message.channel))
        peer.say(say.Present(message.id, state.members, state.version, state.subscriptions))

    def _count(self, peer: WorkerPeer, message: say.Count) -> None:
        peer.say(say.Counted(message.id, _now(self.presence.count(message.app_id, message.channel))))

    def _describe(self, peer: WorkerPeer, message: say.Describe) -> None:
        change = self.presence.change(message.app_id, message.channel, message.user_id, message.user_info)
        peer.say(say.Described(message.id, _now(change)))

    def _channels(self, peer: WorkerPeer, message: say.Channels) -> None:
        peer.say(say.Listed(message.id, _now(self.presence.channels(message.app_id, message.prefix))))

    def _workers(self, peer: WorkerPeer, message: say.Workers) -> None:
        peer.say(say.Answered(message.id, self.workers()))

    def _connections(self, peer: WorkerPeer, message: say.Connections) -> None:
        peer.connections[message.app_id] = message.connections
        self._count_changed(message.app_id)

    def _count_changed(self, app_id: str) -> None:
        if not self.peers:
            return  # A newcomer is told at its Hello.
        if not self._unsaid:
            asyncio.get_running_loop().call_soon(self._tell_counts)
        self._unsaid.add(app_id)

    def _tell_counts(self) -> None:
        for app_id in self._unsaid:
            for peer in self.peers:
                peer.say(say.Elsewhere(app_id, self.connections_elsewhere(app_id, peer)))
        self._unsaid.clear()

    # History, receipts, figures

    def _append(self, peer: WorkerPeer, message: say.Append) -> None:
        position = _now(self.history.append(message.app_id, message.channel, message.frame, message.ttl_s))
        peer.say(say.Appended(message.id, position))

    def _latest(self, peer: WorkerPeer, message: say.Latest) -> None:
        entry: HistoryEntry | None = _now(self.history.latest(message.app_id, message.channel))
        peer.say(say.Kept(message.id, () if entry is None else (entry,)))

    def _since(self, peer: WorkerPeer, message: say.Since) -> None:
        entries = _now(self.history.since(message.app_id, message.channel, message.position))
        peer.say(say.Kept(message.id, None if entries is None else tuple(entries)))

    def _claim(self, peer: WorkerPeer, message: say.Claim) -> None:
        try:
            answer = _now(self.idempotency.claim(message.app_id, message.key))
        except CallUnderWay:
            peer.say(say.Claimed(message.id, True, None))
        else:
            if answer is None:
                peer.claims.add((message.app_id, message.key))
            peer.say(say.Claimed(message.id, False, answer))

    def _complete(self, peer: WorkerPeer, message: say.Complete) -> None:
        peer.claims.discard((message.app_id, message.key))
        _now(self.idempotency.complete(message.app_id, message.key, message.answer))

    def _release(self, peer: WorkerPeer, message: say.Release) -> None:
        peer.claims.discard((message.app_id, message.key))
        _now(self.idempotency.release(message.app_id, message.key))

    def _totals(self, peer: WorkerPeer, message: say.TotalsAsked) -> None:
        peer.say(say.Summed(message.id, self.totals()))
