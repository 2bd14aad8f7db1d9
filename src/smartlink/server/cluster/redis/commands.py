"""Commands to Redis, in order and in groups.

Callers put commands into one queue; one task takes all that are waiting, sends them as one pipeline, and distributes
the replies. So commands are executed in the order they were queued, and those queued in one turn of the loop cost one
exchange. Nothing is sent twice: a command whose reply was lost may have been executed, and its caller is told so.

While a slot of a Cluster is moving, a command may have to be retried. It waits in a lane for its key, with later
commands on that key behind it; all others proceed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from redis.asyncio.connection import Connection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from smartlink.background import Background, ended
from smartlink.backoff import Backoff
from smartlink.lost import closed_is_lost
from smartlink.prometheus import Histogram
from smartlink.server.cluster.redis.connect import (
    LOST,
    TIMEOUT_S,
    Endpoint,
    RedisRefused,
    Topology,
    check_permissions,
    find_topology,
    open_connection,
    read_slots,
)
from smartlink.server.settings.redis_address import RedisAddress
from smartlink.throttle import Throttle

__all__ = ["FULL", "RedisCommands", "RedisUnavailable", "Script"]

MAX_QUEUED = 100_000
"""Limit of queued commands; beyond it, calls fail at once."""
MAX_GROUP = 1_000
MAX_TRIES = 8
"""About half a second: by then a moving slot is complete, or was left half moved."""
RETRY_S = 0.02
"""By how much each wait is longer than the one before."""
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.05, 1.0
START_S = 5.0
FULL = "Redis is full: it accepts no writes until memory is freed (raise maxmemory)"
FULL_S = 3.0
"""How long Redis counts as full after it refused a write."""

log = structlog.get_logger(__name__)


class RedisUnavailable(Exception):
    """Redis did not execute a command, or may have without replying (`was_sent`)."""

    def __init__(self, reason: str, *, was_sent: bool = False) -> None:
        super().__init__(reason)
        self.was_sent = was_sent


class Script:
    """A Lua script, atomic in Redis. Register it with `RedisCommands` before the first call."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class _Command:
    __slots__ = ("arguments", "asking", "future", "key", "lost", "tries")

    def __init__(self, key: str, arguments: Sequence[Any], lost: Callable[[], None] | None) -> None:
        self.key = key
        self.arguments = arguments
        self.lost = lost
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        """Resolves to the reply, or to the exception that `ask` raises, so that it may be ignored."""
        self.tries = 0
        self.asking: Endpoint | None = None

    def answer(self, reply: Any) -> None:
        if isinstance(reply, OutOfMemoryError):
            self.fail(RedisUnavailable(FULL))
        elif isinstance(reply, ResponseError):
            self.fail(RedisUnavailable(f"Redis rejected a command: {str(reply)[:200]}"))
        elif not self.future.done():
            self.future.set_result(reply)

    def fail(self, reason: RedisUnavailable) -> None:
        if self.lost is not None:
            self.lost()
        if not self.future.done():
            self.future.set_result(reason)


class _Lane:
    """Commands on one key; the first is to be retried at `due` on the loop's clock."""

    __slots__ = ("due", "waiting")

    def __init__(self) -> None:
        self.due = 0.0
        self.waiting: deque[_Command] = deque()


class RedisCommands:
    """One node's commands to Redis, shared by its engines; each of them opens and closes it.

    While Redis is unreachable, calls fail at once. It reconnects by itself, at most LAST_BACKOFF_S apart, for ever.
    `on_loss` and `on_return` are synchronous and called in the step in which it happens.
    """

    def __init__(self, address: RedisAddress, scripts: Sequence[Script] = (), prefix: str = "") -> None:
        """With a `prefix`, checks after each connect whether the user has all the permissions that nodes need."""
        self.address = address
        self._prefix = prefix
        self.is_available = False
        self.problem = "not connected yet"
        """Why Redis is unreachable; empty while it is connected."""
        self._full_at = -FULL_S
        self._policies: dict[str, str] = {}
        self._has_logged_policy = False
        self.topology: Topology | None = None
        self.background = Background()
        self.on_loss: list[Callable[[], None]] = []
        self.on_return: list[Callable[[], None]] = []
        self.on_moved: list[Callable[[], None]] = []
        """Called when slots have moved to another server of the Cluster."""
        self._scripts = [script.text for script in scripts]
        self.detours: set[str] = set()
        """Keys last found on the server that their slot is moving to, before it owns the slot."""
        self._queue: deque[_Command] = deque()
        self._lanes: dict[str, _Lane] = {}
        self._in_lanes = 0
        self._wake = asyncio.Event()
        self._is_stale = False
        self._returned = asyncio.Event()
        self._connections: dict[Endpoint, Connection] = {}
        self._users = 0
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._refused: RedisRefused | None = None
        self._throttle = Throttle()
        self.round_trips = Histogram()
        """How long pipelined groups of commands took."""

    async def open(self) -> None:
        """Connect, or start retrying for ever. Raises RedisRefused if Redis rejects our credentials."""
        self._users += 1
        if self._task is None:
            self._tried.clear()
            self._task = self.background.start("sending commands to Redis", self._run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._tried.wait()
        if self._refused is not None and not self.is_available:
            await self.close()
            raise self._refused

    async def close(self) -> None:
        """When the last engine closes: send what is queued, then disconnect."""
        self._users -= 1
        if self._users > 0 or self._task is None:
            return
        with contextlib.suppress(RedisUnavailable, TimeoutError):
            async with asyncio.timeout(2 * TIMEOUT_S):
                await self.ask("", "PING")  # answered after everything queued before it
        task, self._task = self._task, None
        await ended(task)

    async def returned(self) -> None:
        """Wait until Redis is connected."""
        while not self.is_available:
            self._returned.clear()
            await self._returned.wait()

    def refresh_topology(self) -> None:
        """Look up the Cluster's slots again, because some have moved."""
        self._is_stale = True
        self._wake.set()

    # Calls

    async def ask(self, key: str, *arguments: Any, lost: Callable[[], None] | None = None) -> Any:
        """Execute one command on the server that holds `key`; it is queued before this waits.

        Raises RedisUnavailable. If the command is lost, `lost` is called in that step, in the order of the queue.
        """
        reply = await self.send(key, *arguments, lost=lost)
        if isinstance(reply, RedisUnavailable):
            raise reply
        return reply

    async def run(
        self, script: Script, keys: Sequence[str], *arguments: Any, lost: Callable[[], None] | None = None
    ) -> Any:
        """Run a script on `keys`, which share one hash tag. Otherwise like `ask`."""
        return await self.ask(keys[0], "EVALSHA", script.sha, len(keys), *keys, *arguments, lost=lost)

    def send(self, key: str, *arguments: Any, lost: Callable[[], None] | None = None) -> asyncio.Future[Any]:
        """Queue one command. The future resolves to the reply or to a RedisUnavailable."""
        command = _Command(key, arguments, lost)
        if not self.is_available:
            command.fail(RedisUnavailable("Redis is unreachable"))
        elif len(self._queue) + self._in_lanes >= MAX_QUEUED:
            command.fail(RedisUnavailable(f"More than {MAX_QUEUED} commands are queued for Redis"))
        else:
            self._queue.append(command)
            self._wake.set()
        return command.future

    # The task

    async def _run(self) -> None:
        backoff = Backoff(FIRST_BACKOFF_S, LAST_BACKOFF_S)
        away_since = time.monotonic()
        try:
            while True:
                try:
                    with closed_is_lost():
                        await self._connect()
                except (*LOST, RedisRefused) as error:
                    self._refused = error if isinstance(error, RedisRefused) else None
                    self._tried.set()
                    self.problem = _describe(error)
                    self._warn("redis unreachable", error)
                    await self._disconnect()
                    await asyncio.sleep(backoff.next_s())
                    continue
                log.info("redis connected", redis=str(self.address), down_s=round(time.monotonic() - away_since, 1))
                backoff.reset()
                self._on_connected()
                try:
                    with closed_is_lost():
                        await self._work()
                except (*LOST, RedisRefused) as error:
                    away_since = time.monotonic()
                    self.problem = _describe(error)
                    log.warning("redis connection lost", reason=self.problem)
                except Exception:  # the boundary: a bug must not isolate the node
                    log.exception("internal error")
                finally:
                    self._on_disconnected()
                    await self._disconnect()
        finally:
            await self._disconnect()

    def _on_connected(self) -> None:
        self.is_available = True
        self.problem = ""
        self._refused = None
        self._tried.set()
        self._returned.set()
        for act in self.on_return:
            act()

    def _on_disconnected(self) -> None:
        self.is_available = False
        lanes, self._lanes, self._in_lanes = self._lanes, {}, 0
        for command in (*(each for lane in lanes.values() for each in lane.waiting), *self._queue):
            command.fail(RedisUnavailable("Redis is unreachable"))
        self._queue.clear()
        self.detours.clear()
        self._policies.clear()
        for act in self.on_loss:
            act()

    async def _connect(self) -> None:
        topology = await find_topology(self.address)
        for endpoint in topology.endpoints if self._prefix else ():
            await check_permissions(self.address, endpoint, self._prefix)
        for endpoint in topology.endpoints:
            self._connections[endpoint] = await open_connection(self.address, endpoint, self._scripts)
        self.topology = topology

    async def _disconnect(self) -> None:
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            await connection.disconnect(nowait=True)

    async def _work(self) -> None:
        while True:
            while not self._queue and not self._is_stale and not self._due():
                self._wake.clear()
                await self._wait()
            if self._is_stale:
                self._is_stale = False
                await self._find_slots()
            if group := self._next_group():
                await self._exchange(group)

    def _due(self) -> list[str]:
        """The lanes whose first command is due for a retry."""
        now = asyncio.get_running_loop().time()
        return [key for key, lane in self._lanes.items() if lane.due <= now]

    async def _wait(self) -> None:
        """Wait until there is something to send."""
        if not self._lanes:
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(lane.due for lane in self._lanes.values())):
                await self._wake.wait()

    def _next_group(self) -> list[_Command]:
        """The first command of each due lane, then the queue, except commands that belong in a lane."""
        group = []
        for key in self._due() if self._lanes else ():
            group.append(self._lanes[key].waiting.popleft())
            self._in_lanes -= 1
        for _ in range(min(len(self._queue), MAX_GROUP)):
            command = self._queue.popleft()
            if self._lanes and (lane := self._lanes.get(command.key)) is not None:
                lane.waiting.append(command)
                self._in_lanes += 1
            else:
                group.append(command)
        return group

    async def _exchange(self, group: list[_Command]) -> None:
        """Send one group and distribute the replies; commands to retry go into lanes. Raises one of LOST."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if len(self._connections) == 1 and not self._lanes:
                    replies = await self._pipeline(next(iter(self._connections.values())), group)
                else:
                    replies = await self._exchange_with_many(group)
        except BaseException:
            for command in group:
                command.fail(RedisUnavailable("The connection to Redis was lost", was_sent=True))
            raise
        self.round_trips.observe(time.monotonic() - began_at)
        again, demoted = self._answer(group, replies)
        self._return_to_lanes(again)
        if self._lanes:
            self._advance_lanes({command.key for command in group} - {command.key for command, _ in again})
        if demoted is not None:
            raise demoted
        if any(isinstance(reply, NoScriptError) for _, reply in again):
            await self._load_scripts()
        if any(isinstance(reply, MovedError) for _, reply in again):
            await self._find_slots()

    def _answer(
        self, group: list[_Command], replies: list[Any]
    ) -> tuple[list[tuple[_Command, ResponseError]], ResponseError | None]:
        """Distribute replies. Returns the commands to retry, and the error if this server has become unusable."""
        again: list[tuple[_Command, ResponseError]] = []
        demoted: ResponseError | None = None
        for command, reply in zip(group, replies, strict=True):
            if isinstance(reply, ReadOnlyError | ClusterDownError):
                demoted = reply
                command.fail(RedisUnavailable("Redis accepts no writes"))
            elif isinstance(reply, NoScriptError | AskError | TryAgainError) and command.tries < MAX_TRIES:
                command.tries += 1
                again.append((command, reply))
            else:
                if command.asking is not None:
                    self.detours.add(command.key)
                elif self.detours:
                    self.detours.discard(command.key)
                command.answer(reply)
                if isinstance(reply, ResponseError):
                    self._note_refusal(reply)
                if isinstance(reply, TryAgainError):
                    self._fail_lane(command.key)
        return again, demoted

    def _note_refusal(self, reply: ResponseError) -> None:
        if isinstance(reply, OutOfMemoryError):
            self._full_at = time.monotonic()
        self._warn("redis is full" if isinstance(reply, OutOfMemoryError) else "redis rejected a command", reply)

    @property
    def is_full(self) -> bool:
        """Whether Redis has just refused a write for lack of memory; nodes write every second."""
        return time.monotonic() - self._full_at < FULL_S

    @property
    def evicts(self) -> str:
        """The policy by which Redis may evict keys that nodes rely on; empty if it evicts none."""
        return next((policy for policy in self._policies.values() if policy != "noeviction"), "")

    def note_memory(self, server: str, info: Any) -> None:
        """Note the reply of a server to `INFO memory`."""
        found = re.search(rb"maxmemory_policy:(\S+)", info) if isinstance(info, bytes) else None
        if found is None:
            return
        policy = self._policies[server] = found[1].decode(errors="replace")
        if policy != "noeviction" and not self._has_logged_policy:
            self._has_logged_policy = True
            log.warning("redis may evict keys that nodes rely on: set maxmemory-policy noeviction", policy=policy)

    def _return_to_lanes(self, again: list[tuple[_Command, ResponseError]]) -> None:
        """Put them back in order, before those that wait there: they were sent earlier."""
        now = asyncio.get_running_loop().time()
        for command, reply in reversed(again):
            lane = self._lanes.setdefault(command.key, _Lane())
            lane.waiting.appendleft(command)
            lane.due = now + RETRY_S * (command.tries - 1)
            command.asking = _asking(reply)
            self._in_lanes += 1

    def _advance_lanes(self, keys: set[str]) -> None:
        """The retried command of each key is answered: continue with the next, or close the lane."""
        for key in keys:
            if (lane := self._lanes.get(key)) is not None and not lane.waiting:
                del self._lanes[key]

    def _fail_lane(self, key: str) -> None:
        """The key's slot is still half moved: fail the waiting commands rather than retry each in turn."""
        lane = self._lanes.get(key)
        while lane is not None and lane.waiting:
            self._in_lanes -= 1
            lane.waiting.popleft().fail(RedisUnavailable("Redis is moving a slot"))

    async def _exchange_with_many(self, group: list[_Command]) -> list[Any]:
        assert self.topology is not None  # noqa: S101 — set by _connect
        parts: dict[Endpoint, list[int]] = {}
        for index, command in enumerate(group):
            endpoint = command.asking or self.topology.endpoint(command.key) or self.topology.endpoints[0]
            parts.setdefault(endpoint, []).append(index)
        replies: list[Any] = [None] * len(group)

        async def exchange(endpoint: Endpoint, indexes: list[int]) -> None:
            connection = self._connections.get(endpoint)
            if connection is None:
                connection = await open_connection(self.address, endpoint, self._scripts)
                self._connections[endpoint] = connection
            answers = await self._pipeline(connection, [group[index] for index in indexes])
            for index, answer in zip(indexes, answers, strict=True):
                replies[index] = answer

        outcomes = await asyncio.gather(*(exchange(*part) for part in parts.items()), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        return replies

    async def _pipeline(self, connection: Connection, commands: list[_Command]) -> list[Any]:
        packed: list[bytes] = []
        for command in commands:
            if command.asking is not None:
                packed += connection.pack_command("ASKING")
            packed += connection.pack_command(*command.arguments)
        await connection.send_packed_command(packed)
        replies: list[Any] = []
        for command in commands:
            if command.asking is not None:
                await connection.read_response(disable_decoding=True)
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except ResponseError as error:
                replies.append(error)
        return replies

    async def _load_scripts(self) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            for connection in self._connections.values():
                await connection.send_packed_command(
                    [part for text in self._scripts for part in connection.pack_command("SCRIPT", "LOAD", text)]
                )
                for _ in self._scripts:
                    await connection.read_response()

    async def _find_slots(self) -> None:
        if self.topology is None or self.topology.slots is None:
            return
        endpoint, connection = next(iter(self._connections.items()))
        async with asyncio.timeout(TIMEOUT_S):
            topology = await read_slots(connection, endpoint)
        if topology != self.topology:
            for endpoint in topology.endpoints:
                if endpoint not in self._connections:
                    self._connections[endpoint] = await open_connection(self.address, endpoint, self._scripts)
            self.topology = topology
            self.detours.clear()
            for act in self.on_moved:
                act()

    def _warn(self, event: str, error: Exception) -> None:
        """Log at most once a minute."""
        if self._throttle.allows():
            log.warning(event, redis=str(self.address), reason=_describe(error))


def _asking(reply: ResponseError) -> Endpoint | None:
    if isinstance(reply, AskError) and not isinstance(reply, MovedError):
        return reply.host, reply.port
    return None


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
