"""Publications between nodes over Redis: one Redis channel per channel, subscribed only by nodes with subscribers.

Durable publications are also written to a short stream per channel, by the script that publishes them. After a broken
subscription a node first reads what it missed there, in order. If the gap is longer than the stream, or the stream was
dropped meanwhile (`kept_bytes`), the channel's subscribers on this node are told to reconnect (by the control "missed",
delivered to this node only; without a channel it means that controls were missed).

While a slot of a Cluster is moving, the stream may be on one server and the subscribers on another. Then the stream is
written on the former, and the subscribers on the latter are told to read it (`{"v":1,"n":true}`).

On the bus: `{"v":1,"i":"<id in the stream>","x":"<excluded recipients>","f":<the frame>}`, for controls
`{"v":1,"i":…,"c":{…}}`; joins and leaves carry their number as `"s"`, events that may be replayed `"e":true`, and those
whose receipt is to be reported their id as `"r"`. Live publications have no id in the stream and are not stored.
Anything else is dropped and counted.
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

import msgspec
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
    is_left_out,
)
from smartlink.server.cluster.brokers.kept_bytes import KEPT_SCRIPTS, MAX_APP_BYTES, USED, KeptBytes
from smartlink.server.cluster.redis.commands import RedisCommands, RedisUnavailable, Script
from smartlink.server.cluster.redis.connect import LOST, Endpoint, RedisRefused, Topology, open_connection
from smartlink.server.cluster.redis.naming import Names
from smartlink.server.cluster.redis.pubsub import Moved, PubSubConnection
from smartlink.server.runtime.metrics import Metrics
from smartlink.throttle import Throttle

__all__ = ["BROKER_SCRIPTS", "MISSED", "RedisBroker"]

VERSION = 1
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
_POSITIONS_SINCE_MS = 1_577_836_800_000
"""2020-01-01, in ms since 1970."""
_SERIAL_BITS = 14
_NO_RETENTION = Retention(frames=0, ttl_s=0.0)

_PUBLISH = Script(
    """
local id = redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[3], '*', 'm', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call(ARGV[1], ARGV[5], '{"v":1,"i":"' .. id .. '",' .. ARGV[2])
"""
    + USED
    + """
if redis.call('XLEN', KEYS[1]) == 1 then return -used end
return used
"""
)
# A stream that begins with an entry no newer than a position holds everything after it. So an empty one gets an entry
# without content.
_RETAIN = Script(
    """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('XADD', KEYS[1], '*', 'm', '') end
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
"""
    + USED
    + """
return {redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1], used}
"""
)
_REPLAY = Script("""
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if not first[1] then return {} end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
return {first[1][1], last[1][1], redis.call('XRANGE', KEYS[1], ARGV[1], '+')}
""")
# The channel is an argument, not a key: a moving slot would refuse a script with a key that does not exist.
_NEWS = b'{"v":1,"n":true}'
"""Announces that the channel's stream holds more."""
_BEAT = Script("""
local now = redis.call('TIME')
local ms = now[1] .. string.format('%03d', math.floor(now[2] / 1000))
return redis.call(ARGV[1], ARGV[2], '{"v":1,"t":' .. ms .. '}')
""")
BROKER_SCRIPTS = (_PUBLISH, _BEAT, _RETAIN, _REPLAY, *KEPT_SCRIPTS)

log = structlog.get_logger(__name__)


class _ControlBody(msgspec.Struct):
    app_id: str
    action: str
    target: str
    data: str = ""


class _Message(msgspec.Struct):
    v: int
    i: str = ""
    x: str | None = None
    s: int = 0
    f: msgspec.Raw = msgspec.Raw()
    c: _ControlBody | None = None
    n: bool = False
    e: bool = False
    r: str | None = None
    t: float = 0.0
    p: str | None = None


class _Beat(msgspec.Struct):
    v: int
    t: int


_message_decoder = msgspec.json.Decoder(_Message)
_beat_decoder = msgspec.json.Decoder(_Beat)
Entries = list[tuple[bytes, tuple[bytes, bytes]]]
"""From a stream: ids, and the single field of each."""
_FAULTS = (msgspec.MsgspecError, ValueError, RecursionError)


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
            body = _ControlBody(publication.app_id, publication.action, publication.target, publication.data)
            await self._keep(self._names.control_log, self._names.control, b'"c":' + msgspec.json.encode(body) + b"}")
            return
        name = self._names.publications(publication.app_id, publication.channel)
        left_out = publication.except_socket
        left_out_field = b"" if left_out is None else b'"x":' + msgspec.json.encode(left_out) + b","
        version_field = b'"s":%d,' % publication.version if publication.version else b""
        event_field = b"" if publication.retention is None else b'"e":true,'
        if publication.report_id is not None:
            event_field += b'"r":' + msgspec.json.encode(publication.report_id) + b","
        if publication.published_at:
            event_field += b'"t":%.6f,' % publication.published_at
        if publication.trace is not None:
            event_field += b'"p":' + msgspec.json.encode(publication.trace) + b","
        body_bytes = left_out_field + version_field + event_field + b'"f":' + publication.frame + b"}"
        if publication.is_live:
            await self._publish_live(publication, name, body_bytes)
        else:
            log_name = self._names.log(publication.app_id, publication.channel)
            retention = publication.retention or _NO_RETENTION
            used = await self._keep(log_name, name, body_bytes, retention)
            kept_s = self._kept_for(retention)
            self._kept_bytes.note(publication.app_id, publication.channel, abs(used), kept_s, is_new=used < 0)

    async def retain(self, app_id: str, channel: str, ttl_s: float) -> int:
        keys, kept_s = (self._names.log(app_id, channel),), max(self._kept_s, math.ceil(ttl_s))
        try:
            last, used = await self._commands.run(_RETAIN, keys, kept_s)
        except RedisUnavailable as error:
            raise BrokerUnavailable(str(error)) from None
        self._kept_bytes.note(app_id, channel, used, kept_s)
        return _as_position(*_parsed_id(last.decode()))

    async def replay(self, app_id: str, channel: str, after: int | None) -> Sequence[Publication] | None:
        keys = (self._names.log(app_id, channel),)
        try:
            found = await self._commands.run(_REPLAY, keys, "-" if after is None else f"({_id_at(after)}")
        except RedisUnavailable as error:
            raise BrokerUnavailable(str(error)) from None
        if not found:
            return [] if after is None else None
        if after is not None:
            at = _parsed_id(_id_at(after))
            if not _parsed_id(found[0].decode()) <= at <= _parsed_id(found[1].decode()):
                return None
        wanted, kept = _Channel(app_id, channel, 0), []
        for entry_id, (_, body) in found[2]:
            if body:
                message = _message_decoder.decode(b'{"v":1,"i":"%b",%b' % (entry_id, body))
                publication = _checked(message, wanted)
                if message.e and isinstance(publication, Publication):
                    kept.append(publication)
        return kept

    def _kept_for(self, retention: Retention) -> int:
        return max(self._kept_s, math.ceil(retention.ttl_s))

    async def _keep(self, log_name: str, name: str, body: bytes, retention: Retention = _NO_RETENTION) -> int:
        """Publish, and write to a stream. Returns the stream's memory, negative if this is its only entry."""
        count, kept_s = max(KEPT_PER_CHANNEL, retention.frames), self._kept_for(retention)
        try:
            used: int = await self._commands.run(_PUBLISH, (log_name,), self._verb, body, count, kept_s, name)
            if log_name in self._commands.detours:
                await self._commands.ask(name, self._verb, name, _NEWS)
        except RedisUnavailable as error:
            raise BrokerUnavailable(str(error)) from None
        return used

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
        found = set()
        for name, each in wanted.items():
            start = self._missed_since(name, since_ms)
            if lost_at.get(each.app_id, -1) < _parsed_id(start)[0]:
                continue
            log_name = self._names.log(each.app_id, each.channel)
            first = await self._commands.ask(log_name, "XRANGE", log_name, "-", "+", "COUNT", 1)
            if not first or _parsed_id(first[0][0].decode()) > _parsed_id(start):
                found.add(name)
        return found

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
                self._commands.send(name, "EVALSHA", _BEAT.sha, 0, self._verb, name)
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
            beat = _beat_decoder.decode(payload)
        except _FAULTS:
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
            message = _message_decoder.decode(payload)
            if message.n or (message.i and name in self._in_news):  # the stream defines the order
                self._news.add(name)
                self._has_news.set()
                return
            publication = _checked(message, wanted)
            is_heard = bool(message.i and _parsed_id(message.i) <= _parsed_id(after or "0-0"))
        except _FAULTS as error:
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


def _parsed_id(entry_id: str) -> tuple[int, int]:
    """A stream id as sortable numbers: milliseconds, and a serial number within them. Raises ValueError."""
    ms, dash, number = entry_id.partition("-")
    if not dash or not (ms.isascii() and ms.isdigit() and number.isascii() and number.isdigit()):
        raise ValueError("invalid id")
    return int(ms[:20]), int(number[:20])


def _as_position(ms: int, number: int) -> int:
    """A stream id as one number below 2**53 until 2037, exact in JSON; 0 for one that does not fit.

    More than 16,384 ids in a millisecond exist only if the clock of Redis was set back.
    """
    return (ms - _POSITIONS_SINCE_MS << _SERIAL_BITS) + number if number < 1 << _SERIAL_BITS else 0


def _id_at(position: int) -> str:
    """The stream id at a position."""
    return f"{(position >> _SERIAL_BITS) + _POSITIONS_SINCE_MS}-{position & (1 << _SERIAL_BITS) - 1}"


def _checked(message: _Message, wanted: _Channel | None) -> Publication | Control:
    """Decode a message. Raises ValueError if no node of ours could have sent it."""
    if message.v != VERSION:
        raise ValueError("unknown version")
    if wanted is None:
        body = message.c
        if body is None:
            raise ValueError("invalid control")
        return Control(body.app_id, body.action, body.target, body.data)
    if not bytes(message.f) or (message.x is not None and not is_left_out(message.x)):
        raise ValueError("invalid publication")
    frame = bytes(message.f)
    frame.decode()
    return Publication(
        wanted.app_id,
        wanted.channel,
        frame,
        message.x,
        version=message.s,
        position=_as_position(*_parsed_id(message.i)) if message.i and message.e else 0,
        report_id=message.r,
        trace=message.p,
        published_at=message.t,
    )
