"""Publications between nodes over Redis: one Redis channel per channel, subscribed only by nodes with subscribers.

Durable publications are also written to a short stream per channel, by the script that publishes them. After a broken
subscription a node first reads what it missed there, in order. If the gap is longer than the stream, or the stream was
dropped meanwhile (`kept_bytes`), the channel's subscribers on this node are told to reconnect (by the control "missed",
delivered to this node only; without a channel it means that controls were missed).

While a slot of a Cluster is moving, the stream may be on one server and the subscribers on another. Then the stream is
written on the former, and the subscribers on the latter are told to read it (`{"v":1,"n":true}`).

What travels is in `redis_messages`; anything else is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
from redis.exceptions import MovedError

from smartlink.background import ended
from smartlink.backoff import Backoff
from smartlink.lost import closed_is_lost
from smartlink.server.cluster.brokers.base import (
    BrokerUnavailable,
    Control,
    Deliver,
    Publication,
    Retention,
)
from smartlink.server.cluster.brokers.kept_bytes import MAX_APP_BYTES, KeptBytes
from smartlink.server.cluster.brokers.redis_messages import (
    FAULTS,
    NEWS,
    Entries,
    as_position,
    body_of,
    control_in,
    decode,
    decode_beat,
    id_at,
    parsed_id,
    publication_in,
)
from smartlink.server.cluster.brokers.redis_scripts import BEAT, PUBLISH, REPLAY, RETAIN
from smartlink.server.cluster.redis.commands import RedisCommands, RedisUnavailable
from smartlink.server.cluster.redis.connect import LOST, Endpoint, RedisRefused, Topology, open_connection
from smartlink.server.cluster.redis.naming import Names
from smartlink.server.cluster.redis.pubsub import Moved, PubSubConnection
from smartlink.server.runtime.metrics import Metrics
from smartlink.throttle import Throttle

__all__ = ["MISSED", "RedisBroker"]

MISSED = "missed"
"""The control a node delivers to itself when publications on the channel `target` are lost."""

KEPT_S = 120
KEPT_PER_CHANNEL = 500
MAX_MESSAGE_BYTES = 4_194_304
MAX_HELD = 50_000
BEAT_EVERY_S = 1.0
MEMORY_EVERY_S = 10.0
"""How often each server is asked for its eviction policy."""
RECALL_S = 10.0
"""How long the last message of each channel is remembered."""
MARGIN_MS = 5_000
ESTABLISH_S = 30.0
START_S = 5.0
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.05, 1.0
_NO_RETENTION = Retention(frames=0, ttl_s=0.0)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Channel:
    app_id: str
    channel: str
    since_ms: int
    """Redis time when this node subscribed."""
    acknowledged: asyncio.Future[None] | None = None


class _Overrun(OSError):
    """More messages arrived during catch-up than can be held."""


class RedisBroker:
    """A `Broker` over Redis. See the module for the protocol."""

    def __init__(
        self,
        commands: RedisCommands,
        names: Names,
        metrics: Metrics,
        *,
        is_sharded: bool = False,
        kept_s: int = KEPT_S,
        max_app_bytes: int = MAX_APP_BYTES,
    ) -> None:
        """`kept_s`: how long publications are kept, at least KEPT_S; the same on all nodes, as is `max_app_bytes`."""
        self._kept_s = max(kept_s, KEPT_S)
        self._kept_bytes = KeptBytes(commands, names, max_app_bytes, self._kept_s)
        self._commands = commands
        self._names = names
        self._metrics = metrics
        self._is_sharded = is_sharded
        self._verb = "SPUBLISH" if is_sharded else "PUBLISH"
        self._node_id = secrets.token_hex(8)
        self._deliver: Deliver | None = None
        self._channels: dict[str, _Channel] = {}
        self._subscriptions: dict[Endpoint, PubSubConnection] = {}
        self._topology: Topology | None = None
        self._is_hearing = False
        self._established = asyncio.Event()
        self._moved = asyncio.Event()
        self._held: list[tuple[str, bytes]] | None = None
        self._beats: dict[str, int] = {}
        """The last heartbeat of each subscription: Redis time in ms."""
        self._beat_at = 0.0
        self._heard: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """The id of the last message of each channel, and when it was received."""
        self._news: set[str] = set()
        """Channels whose stream has unread entries."""
        self._in_news: set[str] = set()
        """Channels whose stream is being read."""
        self._has_news = asyncio.Event()
        self._throttle = Throttle()
        self._task: asyncio.Task[None] | None = None
        commands.on_moved.append(self._moved.set)

    @property
    def is_available(self) -> bool:
        return self._commands.is_available and self._is_hearing

    async def start(self, deliver: Deliver) -> None:
        """Start receiving. Raises RedisRefused if Redis rejects our credentials. If Redis is unreachable, retries in
        the background.
        """
        await self._commands.open()
        self._deliver = deliver
        self._beat_at = time.monotonic()
        self._task = self._commands.background.start("receiving from other nodes over Redis", self._run())
        if self._commands.is_available:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(START_S):
                    await self._established.wait()

    async def stop(self) -> None:
        if self._deliver is None:
            return
        self._deliver = None
        await ended(self._task)
        self._kept_bytes.stop()
        self._channels.clear()
        await self._commands.close()

    async def subscribe(self, app_id: str, channel: str) -> None:
        name = self._names.publications(app_id, channel)
        wanted = self._channels.get(name)
        if wanted is None:
            wanted = self._channels[name] = _Channel(app_id, channel, self._redis_ms())
            if (subscription := self._subscription(name)) is not None:
                wanted.acknowledged = subscription.subscribe(name)
        if wanted.acknowledged is not None and not wanted.acknowledged.done():
            await asyncio.shield(wanted.acknowledged)

    async def unsubscribe(self, app_id: str, channel: str) -> None:
        name = self._names.publications(app_id, channel)
        if self._channels.pop(name, None) is not None and (subscription := self._subscription(name)) is not None:
            subscription.unsubscribe(name)

    async def publish(self, publication: Publication | Control) -> None:
        if self._deliver is None:
            return
        if isinstance(publication, Control):
            await self._keep(self._names.control_log, self._names.control, body_of(publication))
            return
        name = self._names.publications(publication.app_id, publication.channel)
        body = body_of(publication)
        if publication.is_live:
            await self._publish_live(publication, name, body)
        else:
            log_name = self._names.log(publication.app_id, publication.channel)
            retention = publication.retention or _NO_RETENTION
            used, is_new, dropped = await self._keep(log_name, name, body, retention)
            kept_s = self._kept_for(retention)
            self._kept_bytes.note(publication.app_id, publication.channel, used, kept_s, is_new=is_new == 1)
            if dropped:
                self._kept_bytes.note_loss(publication.app_id)

    async def retain(self, app_id: str, channel: str, ttl_s: float) -> int:
        keys, kept_s = (self._names.log(app_id, channel),), max(self._kept_s, math.ceil(ttl_s))
        try:
            last, used, is_empty = await self._commands.run(RETAIN, keys, kept_s)
        except RedisUnavailable as error:
            raise BrokerUnavailable(str(error)) from None
        if is_empty:
            self._kept_bytes.note_empty(app_id, channel, used, kept_s)
        else:
            self._kept_bytes.note(app_id, channel, used, kept_s)
        return as_position(*parsed_id(last.decode()))

    async def replay(self, app_id: str, channel: str, after: int | None) -> Sequence[Publication] | None:
        keys = (self._names.log(app_id, channel),)
        try:
            found = await self._commands.run(REPLAY, keys, "-" if after is None else f"({id_at(after)}")
        except RedisUnavailable as error:
            raise BrokerUnavailable(str(error)) from None
        if not found:
            return [] if after is None else None
        if after is not None:
            at = parsed_id(id_at(after))
            if not parsed_id(found[0].decode()) <= at <= parsed_id(found[1].decode()):
                return None
        kept = []
        for entry_id, (_, body) in found[2]:
            if body:
                message = decode(b'{"v":1,"i":"%b",%b' % (entry_id, body))
                if message.e:
                    kept.append(publication_in(message, app_id, channel))
        return kept

    def _kept_for(self, retention: Retention) -> int:
        return max(self._kept_s, math.ceil(retention.ttl_s))

    async def _keep(self, log_name: str, name: str, body: bytes, retention: Retention = _NO_RETENTION) -> list[int]:
        """Publish, and write to a stream. Returns what `PUBLISH` does."""
        count, kept_s = max(KEPT_PER_CHANNEL, retention.frames), self._kept_for(retention)
        most = retention.max_bytes if retention.is_always else 0
        try:
            kept: list[int] = await self._commands.run(
                PUBLISH, (log_name,), self._verb, body, count, kept_s, name, most
            )
            if log_name in self._commands.detours:
                await self._commands.ask(name, self._verb, name, NEWS)
        except RedisUnavailable as error:
            raise BrokerUnavailable(str(error)) from None
        return kept

    async def _publish_live(self, publication: Publication, name: str, body: bytes) -> None:
        was_subscribed = bool(self._subscriptions)
        try:
            await self._commands.ask(name, self._verb, name, b'{"v":1,' + body)
        except RedisUnavailable as error:
            # It may have been sent: lose it rather than deliver it twice.
            if error.was_sent and was_subscribed:
                return
        else:
            if was_subscribed:
                return
        if self._deliver is not None and name in self._channels:
            self._deliver(publication)

    # Receiving

    async def _run(self) -> None:
        backoff = Backoff(FIRST_BACKOFF_S, LAST_BACKOFF_S)
        while True:
            await self._commands.returned()
            self._moved.clear()
            try:
                with closed_is_lost():
                    await self._receive()
            except (*LOST, RedisUnavailable, RedisRefused) as error:
                if self._is_hearing:
                    backoff.reset()
                if isinstance(error, Moved | MovedError):
                    self._commands.refresh_topology()
                else:
                    self._warn("redis subscription lost", error)
            except Exception:  # the boundary: a bug must not leave the node deaf
                log.exception("internal error")
            finally:
                self._is_hearing = False
                self._subscriptions = {}
                self._established.clear()
            await asyncio.sleep(backoff.next_s())

    async def _receive(self) -> None:
        topology = self._commands.topology
        if topology is None:
            return
        self._held = []
        self._news, self._in_news = set(), set()
        heartbeats = self._heartbeats(topology)
        subscriptions: dict[Endpoint, PubSubConnection] = {}
        tasks: list[asyncio.Task[None]] = []
        try:
            for endpoint, heartbeat in heartbeats.items():
                connection = await open_connection(self._commands.address, endpoint)
                subscriptions[endpoint] = subscription = PubSubConnection(
                    connection, heartbeat, self._on_message, is_sharded=self._is_sharded
                )
                tasks.append(asyncio.create_task(subscription.listen()))
            tasks.append(asyncio.create_task(self._beat(heartbeats.values())))
            tasks.append(asyncio.create_task(self._wait_for_move(subscriptions, tuple(heartbeats.values()))))
            tasks.append(asyncio.create_task(self._read_news()))
            establishing = asyncio.create_task(self._establish(subscriptions, topology, heartbeats))
            tasks.append(establishing)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if establishing.done():
                establishing.result()
                tasks.remove(establishing)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await ended(*tasks)

    async def _establish(
        self, subscriptions: dict[Endpoint, PubSubConnection], topology: Topology, heartbeats: dict[Endpoint, str]
    ) -> None:
        """Subscribe to all channels, deliver what was missed, then what arrived meanwhile."""
        async with asyncio.timeout(ESTABLISH_S):
            times = await self._times(heartbeats.values())
            self._topology, self._subscriptions = topology, subscriptions
            names: dict[Endpoint, list[str]] = {}
            for name in (self._names.control, *self._channels):
                if (endpoint := topology.endpoint(name)) in subscriptions:
                    names.setdefault(endpoint, []).append(name)
            await asyncio.gather(*(subscriptions[endpoint].subscribed(group) for endpoint, group in names.items()))
            replayed = await self._catch_up(min(times.values()))
        held, self._held = self._held or [], None
        for name, payload in held:
            self._take(name, payload, after=replayed.get(name))
        if not self._beats:
            for wanted in self._channels.values():
                wanted.since_ms = wanted.since_ms or min(times.values())
        self._beats, self._beat_at = times, time.monotonic()
        self._is_hearing = True
        self._established.set()

    async def _times(self, heartbeats: Iterable[str]) -> dict[str, int]:
        """The clock of each server in ms, by its heartbeat."""
        times: dict[str, int] = {}
        for name in heartbeats:
            seconds, microseconds = await self._commands.ask(name, "TIME")
            times[name] = int(seconds) * 1_000 + int(microseconds) // 1_000
        return times

    async def _catch_up(self, now_ms: int) -> dict[str, str]:
        """Deliver what was published since the last heartbeat. Returns the last id of each channel that had any.

        Before the first heartbeat it reads the controls since the start, since clients may be connected already.
        """
        apart_s = time.monotonic() - self._beat_at
        since_ms = min(self._beats.values(), default=now_ms - int(apart_s * 1_000)) - MARGIN_MS
        is_too_late = apart_s > KEPT_S
        replayed: dict[str, str] = {}
        names = [self._names.control, *(self._channels if self._beats else ())]
        for start in range(0, len(names), 1_000):
            group = names[start : start + 1_000]
            replies = await asyncio.gather(*(self._missed(name, since_ms) for name in group))
            dropped = await self._dropped(group, since_ms)
            for name, entries in zip(group, replies, strict=True):
                if isinstance(entries, RedisUnavailable):
                    raise entries
                if is_too_late or name in dropped or len(entries) >= KEPT_PER_CHANNEL:
                    self._deliver_missed(name)
                    continue
                if entries:
                    replayed[name] = self._take_entries(name, entries)
        return replayed

    def _take_entries(self, name: str, entries: Entries) -> str:
        """Deliver the entries of a stream. Returns the last id."""
        for entry_id, (_, body) in entries:
            if body:
                self._take(name, b'{"v":1,"i":"%b",%b' % (entry_id, body))
        return entries[-1][0].decode() if entries else ""

    async def _dropped(self, names: Sequence[str], since_ms: int) -> set[str]:
        """Return the channels of which something since then may have been dropped (`kept_bytes`)."""
        wanted = {name: self._channels[name] for name in names if name in self._channels}
        lost_at = await self._kept_bytes.lost_at({each.app_id for each in wanted.values()})
        starts = {name: parsed_id(self._missed_since(name, since_ms)) for name in wanted}
        doubtful = [name for name, each in wanted.items() if lost_at.get(each.app_id, -1) >= starts[name][0]]
        logs = [self._names.log(wanted[name].app_id, wanted[name].channel) for name in doubtful]
        firsts = await asyncio.gather(*(self._commands.ask(log, "XRANGE", log, "-", "+", "COUNT", 1) for log in logs))
        return {
            name
            for name, first in zip(doubtful, firsts, strict=True)
            if not first or parsed_id(first[0][0].decode()) > starts[name]
        }

    def _missed_since(self, name: str, since_ms: int) -> str:
        """The id after which a channel's messages may have been missed."""
        if (heard := self._heard.get(name)) is not None:
            return heard[0]
        wanted = self._channels.get(name)
        return f"{max(since_ms, wanted.since_ms if wanted is not None else 0, 0)}-0"

    def _missed(self, name: str, since_ms: int) -> asyncio.Future[Entries]:
        wanted = self._channels.get(name)
        log_name = self._names.control_log if wanted is None else self._names.log(wanted.app_id, wanted.channel)
        if (heard := self._heard.get(name)) is not None:
            start = f"({heard[0]}"
        else:
            start = str(max(since_ms, wanted.since_ms if wanted is not None else 0, 0))
        return self._commands.send(log_name, "XRANGE", log_name, start, "+", "COUNT", KEPT_PER_CHANNEL)

    async def _read_news(self) -> None:
        """Deliver entries of streams on another server than their subscribers."""
        await self._established.wait()
        while True:
            while not self._news:
                self._has_news.clear()
                await self._has_news.wait()
            names, self._news = self._news, set()
            self._in_news = names.copy()
            # A channel without messages for RECALL_S has delivered everything older.
            since_ms = self._redis_ms() - MARGIN_MS
            replies = await asyncio.gather(*(self._missed(name, since_ms) for name in names))
            for name, entries in zip(names, replies, strict=True):
                if isinstance(entries, RedisUnavailable):
                    raise entries
                self._in_news.discard(name)
                if len(entries) >= KEPT_PER_CHANNEL:
                    self._deliver_missed(name)
                self._take_entries(name, entries)

    def _deliver_missed(self, name: str) -> None:
        wanted = self._channels.get(name)
        if self._deliver is not None:
            self._deliver(Control("", MISSED, "") if wanted is None else Control(wanted.app_id, MISSED, wanted.channel))

    async def _beat(self, heartbeats: Iterable[str]) -> None:
        names = tuple(heartbeats)
        asked_at = -MEMORY_EVERY_S
        while True:
            if time.monotonic() - asked_at >= MEMORY_EVERY_S:
                asked_at = time.monotonic()
                for name in names:
                    self._commands.note_memory(name, await self._commands.send(name, "INFO", "memory"))
            for name in names:
                self._commands.send(name, "EVALSHA", BEAT.sha, 0, self._verb, name)
            await asyncio.sleep(BEAT_EVERY_S)

    async def _wait_for_move(self, subscriptions: dict[Endpoint, PubSubConnection], heartbeats: Iterable[str]) -> None:
        """Raise once a subscribed channel is served by a different server."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            old, new = self._topology, self._commands.topology
            if old is None or new is None or set(new.endpoints) != set(subscriptions):
                raise Moved("the Cluster's servers changed")
            for name in (self._names.control, *heartbeats, *self._channels):
                if new.endpoint(name) != old.endpoint(name):
                    raise Moved("slots moved")
            self._topology = new

    def _heartbeats(self, topology: Topology) -> dict[Endpoint, str]:
        """A channel of our own on each server, to receive heartbeats from."""
        found: dict[Endpoint, str] = {}
        for number in range(100_000):
            name = self._names.heartbeat(self._node_id, number)
            if (endpoint := topology.endpoint(name)) is not None:
                found.setdefault(endpoint, name)
            if len(found) == len(topology.endpoints):
                break
        return found

    def _subscription(self, name: str) -> PubSubConnection | None:
        endpoint = None if self._topology is None else self._topology.endpoint(name)
        return None if endpoint is None else self._subscriptions.get(endpoint)

    def _redis_ms(self) -> int:
        """Estimated Redis time in ms; 0 before the first heartbeat."""
        return max(self._beats.values()) + int((time.monotonic() - self._beat_at) * 1_000) if self._beats else 0

    # Messages

    def _on_message(self, name: str, payload: bytes) -> None:
        if name.startswith(f"{self._names.prefix}:p:"):
            self._on_beat(name, payload)
        elif self._held is None:
            self._take(name, payload)
        elif len(self._held) < MAX_HELD:
            self._held.append((name, payload))
        else:
            raise _Overrun(f"more than {MAX_HELD} messages during catch-up")

    def _on_beat(self, name: str, payload: bytes) -> None:
        # During catch-up, the last heartbeat before the gap is the one that counts.
        if self._held is not None:
            return
        try:
            beat = decode_beat(payload)
        except FAULTS:
            self._drop("no heartbeat")
            return
        self._beats[name] = beat.t
        now = self._beat_at = time.monotonic()
        while self._heard and now - next(iter(self._heard.values()))[1] > RECALL_S:
            self._heard.popitem(last=False)

    def _take(self, name: str, payload: bytes, after: str | None = None) -> None:
        """Check one message and deliver it. Never raises."""
        if self._deliver is None:
            return
        wanted = self._channels.get(name)
        if wanted is None and name != self._names.control:
            return
        try:
            if len(payload) > MAX_MESSAGE_BYTES:
                raise ValueError("too large")
            message = decode(payload)
            if message.n or (message.i and name in self._in_news):  # the stream defines the order
                self._news.add(name)
                self._has_news.set()
                return
            publication = (
                control_in(message) if wanted is None else publication_in(message, wanted.app_id, wanted.channel)
            )
            is_heard = bool(message.i and parsed_id(message.i) <= parsed_id(after or "0-0"))
        except FAULTS as error:
            self._drop(type(error).__name__)
            return
        if is_heard:
            return
        if message.i:
            self._heard[name] = (message.i, time.monotonic())
            self._heard.move_to_end(name)
        self._deliver(publication)

    def _drop(self, reason: str) -> None:
        self._metrics.bus_messages_dropped += 1
        self._warn("dropped an invalid message on the redis bus", ValueError(reason))

    def _warn(self, event: str, error: Exception) -> None:
        """Log at most once a minute."""
        if self._throttle.allows(event):
            log.warning(event, reason=f"{type(error).__name__}: {str(error)[:200]}")
