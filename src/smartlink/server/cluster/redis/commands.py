"""Commands to Redis, in order and in groups.

Whoever calls puts a command into one queue; one task takes all that waits, sends it as one pipeline, and hands out the
answers. So commands are carried out in the order they were put in, and what many ask for in one turn of the loop costs
one exchange. Nothing is sent twice: a command whose answer was lost may have been carried out, and its caller is told.

While a slot of a Cluster moves, a command may have to be tried again. It waits in a lane of its key, and the later
commands on that key behind it; all others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
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
from smartlink.lost import closed_is_lost
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

__all__ = ["FULL", "RedisCommands", "RedisUnavailable", "Script"]

MAX_QUEUED = 100_000
"""Commands that may wait; beyond, a call fails at once."""
MAX_GROUP = 1_000
MAX_TRIES = 8
"""Half a second of them: a slot that moves is whole again by then, or somebody left it half moved."""
RETRY_S = 0.02
"""How much longer each wait is than the one before."""
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.05, 1.0
START_S = 5.0
FULL = "Redis is full: it accepts no writes until memory is freed (raise maxmemory)"
FULL_S = 3.0
"""Redis is taken for full for so long after it refused to write."""

log = structlog.get_logger(__name__)


class RedisUnavailable(Exception):
    """Redis did not carry out a command, or (`was_sent`) may have and did not say so."""

    def __init__(self, reason: str, *, was_sent: bool = False) -> None:
        super().__init__(reason)
        self.was_sent = was_sent


class Script:
    """A Lua script, atomic in Redis. Known to `RedisCommands` before it is first called."""

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
        """Resolved with the answer, or with the exception that `ask` raises: nobody has to look at it."""
        self.tries = 0
        self.asking: Endpoint | None = None

    def answer(self, reply: Any) -> None:
        if isinstance(reply, OutOfMemoryError):
            self.lose(RedisUnavailable(FULL))
        elif isinstance(reply, ResponseError):
            self.lose(RedisUnavailable(f"Redis refuses a command: {str(reply)[:200]}"))
        elif not self.future.done():
            self.future.set_result(reply)

    def lose(self, reason: RedisUnavailable) -> None:
        if self.lost is not None:
            self.lost()
        if not self.future.done():
            self.future.set_result(reason)


class _Lane:
    """Commands on one key, the first of which is to be tried again, at `due` on the loop's clock."""

    __slots__ = ("due", "waiting")

    def __init__(self) -> None:
        self.due = 0.0
        self.waiting: deque[_Command] = deque()


class RedisCommands:
    """One node's commands to Redis, shared by its engines; each of them opens and closes it.

    While Redis is away calls fail at once. It comes back by itself: connecting is tried for ever, at most
    LAST_BACKOFF_S apart. `on_loss` and `on_return` are plain functions, called in the step in which it happens.
    """

    def __init__(self, address: RedisAddress, scripts: Sequence[Script] = (), prefix: str = "") -> None:
        """With a `prefix`, the nodes', it is tried at each return whether their user may do all they need to."""
        self.address = address
        self._prefix = prefix
        self.is_available = False
        self.problem = "it has not been reached yet"
        """Why Redis is away, in words; empty while it is there."""
        self._full_at = -FULL_S
        self._policies: dict[str, str] = {}
        self._has_told_of_policy = False
        self.topology: Topology | None = None
        self.background = Background()
        self.on_loss: list[Callable[[], None]] = []
        self.on_return: list[Callable[[], None]] = []
        self.on_moved: list[Callable[[], None]] = []
        """Called when slots have moved to another server of the Cluster."""
        self._scripts = [script.text for script in scripts]
        self.detours: set[str] = set()
        """Keys that were last found on the server their slot is moving to, while it still belongs to another."""
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
        self._complained_at = -60.0

    async def open(self) -> None:
        """Connect, or begin to try for ever. Raises Refused where Redis answers and will not have us."""
        self._users += 1
        if self._task is None:
            self._tried.clear()
            self._task = self.background.start("commands to Redis", self._run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._tried.wait()
        if self._refused is not None and not self.is_available:
            await self.close()
            raise self._refused

    async def close(self) -> None:
        """When the last engine closes: send what waits, then disconnect."""
        self._users -= 1
        if self._users > 0 or self._task is None:
            return
        with contextlib.suppress(RedisUnavailable, TimeoutError):
            async with asyncio.timeout(2 * TIMEOUT_S):
                await self.ask("", "PING")  # answered after all that was put in before
        task, self._task = self._task, None
        await ended(task)

    async def returned(self) -> None:
        """Wait until Redis is there."""
        while not self.is_available:
            self._returned.clear()
            await self._returned.wait()

    def refresh_topology(self) -> None:
        """Somebody was told that slots of the Cluster have moved: ask where they are."""
        self._is_stale = True
        self._wake.set()

    # Calls

    async def ask(self, key: str, *arguments: Any, lost: Callable[[], None] | None = None) -> Any:
        """Carry out one command on the server that holds `key`; it is in the queue before anything waits.

        Raises RedisUnavailable. `lost` is called, in the order of the queue, in the step in which the command is lost.
        """
        reply = await self.send(key, *arguments, lost=lost)
        if isinstance(reply, RedisUnavailable):
            raise reply
        return reply

    async def run(
        self, script: Script, keys: Sequence[str], *arguments: Any, lost: Callable[[], None] | None = None
    ) -> Any:
        """Run a script on `keys`, which share one hash tag. As `ask`."""
        return await self.ask(keys[0], "EVALSHA", script.sha, len(keys), *keys, *arguments, lost=lost)

    def send(self, key: str, *arguments: Any, lost: Callable[[], None] | None = None) -> asyncio.Future[Any]:
        """Put one command into the queue. The future's result is the answer, or a RedisUnavailable."""
        command = _Command(key, arguments, lost)
        if not self.is_available:
            command.lose(RedisUnavailable("Redis is away"))
        elif len(self._queue) + self._in_lanes >= MAX_QUEUED:
            command.lose(RedisUnavailable(f"More than {MAX_QUEUED} commands wait for Redis"))
        else:
            self._queue.append(command)
            self._wake.set()
        return command.future

    # The one task

    async def _run(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        away_since = time.monotonic()
        try:
            while True:
                try:
                    with closed_is_lost():
                        await self._connect()
                except (*LOST, RedisRefused) as error:
                    self._refused = error if isinstance(error, RedisRefused) else None
                    self._tried.set()
                    self.problem = _words(error)
                    self._warn("redis cannot be reached", error)
                    await self._disconnect()
                    await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 — jitter is no secret
                    backoff_s = min(backoff_s * 2, LAST_BACKOFF_S)
                    continue
                log.info("redis is there", redis=str(self.address), after_s=round(time.monotonic() - away_since, 1))
                backoff_s = FIRST_BACKOFF_S
                self._come_back()
                try:
                    with closed_is_lost():
                        await self._work()
                except (*LOST, RedisRefused) as error:
                    away_since = time.monotonic()
                    self.problem = _words(error)
                    log.warning("redis is away", reason=self.problem)
                except Exception:  # the edge: a bug of ours must not leave the node alone for ever
                    log.exception("internal error")
                finally:
                    self._lose()
                    await self._disconnect()
        finally:
            await self._disconnect()

    def _come_back(self) -> None:
        self.is_available = True
        self.problem = ""
        self._refused = None
        self._tried.set()
        self._returned.set()
        for act in self.on_return:
            act()

    def _lose(self) -> None:
        self.is_available = False
        lanes, self._lanes, self._in_lanes = self._lanes, {}, 0
        for command in (*(each for lane in lanes.values() for each in lane.waiting), *self._queue):
            command.lose(RedisUnavailable("Redis is away"))
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
        """The lanes whose first command may be tried again now."""
        now = asyncio.get_running_loop().time()
        return [key for key, lane in self._lanes.items() if lane.due <= now]

    async def _wait(self) -> None:
        """Until there is something to send."""
        if not self._lanes:
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(lane.due for lane in self._lanes.values())):
                await self._wake.wait()

    def _next_group(self) -> list[_Command]:
        """The first of each lane that is due, then what waits in the queue, but for what belongs into a lane."""
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
        """Send one group and hand out the answers; what is to be tried again goes into lanes. Raises one of LOST."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if len(self._connections) == 1 and not self._lanes:
                    replies = await self._pipeline(next(iter(self._connections.values())), group)
                else:
                    replies = await self._exchange_with_many(group)
        except BaseException:
            for command in group:
                command.lose(RedisUnavailable("Redis was lost", was_sent=True))
            raise
        again, demoted = self._answer(group, replies)
        self._return_to_lanes(again)
        if self._lanes:
            self._go_on({command.key for command in group} - {command.key for command, _ in again})
        if demoted is not None:
            raise demoted
        if any(isinstance(reply, NoScriptError) for _, reply in again):
            await self._load_scripts()
        if any(isinstance(reply, MovedError) for _, reply in again):
            await self._find_slots()

    def _answer(
        self, group: list[_Command], replies: list[Any]
    ) -> tuple[list[tuple[_Command, ResponseError]], ResponseError | None]:
        """Hand out answers. Returns what is to be tried again, and why this server is no use, if so."""
        again: list[tuple[_Command, ResponseError]] = []
        demoted: ResponseError | None = None
        for command, reply in zip(group, replies, strict=True):
            if isinstance(reply, ReadOnlyError | ClusterDownError):
                demoted = reply
                command.lose(RedisUnavailable("Redis takes no writes"))
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
                    self._give_up(command.key)
        return again, demoted

    def _note_refusal(self, reply: ResponseError) -> None:
        if isinstance(reply, OutOfMemoryError):
            self._full_at = time.monotonic()
        self._warn("redis is full" if isinstance(reply, OutOfMemoryError) else "redis refuses a command", reply)

    @property
    def is_full(self) -> bool:
        """Whether Redis refused to write for lack of memory just now; nodes write every second."""
        return time.monotonic() - self._full_at < FULL_S

    @property
    def evicts(self) -> str:
        """The policy by which Redis throws away keys that nodes rely on; empty where it throws none away."""
        return next((policy for policy in self._policies.values() if policy != "noeviction"), "")

    def note_memory(self, server: str, info: Any) -> None:
        """What `INFO memory` says on a server."""
        found = re.search(rb"maxmemory_policy:(\S+)", info) if isinstance(info, bytes) else None
        if found is None:
            return
        policy = self._policies[server] = found[1].decode(errors="replace")
        if policy != "noeviction" and not self._has_told_of_policy:
            self._has_told_of_policy = True
            log.warning("redis may evict what nodes rely on: set maxmemory-policy noeviction", policy=policy)

    def _return_to_lanes(self, again: list[tuple[_Command, ResponseError]]) -> None:
        """In order, before what waits there already: it was sent earlier."""
        now = asyncio.get_running_loop().time()
        for command, reply in reversed(again):
            lane = self._lanes.setdefault(command.key, _Lane())
            lane.waiting.appendleft(command)
            lane.due = now + RETRY_S * (command.tries - 1)
            command.asking = _asking(reply)
            self._in_lanes += 1

    def _go_on(self, keys: set[str]) -> None:
        """What was tried again on these keys is answered: the next one's turn, or the end of the lane."""
        for key in keys:
            if (lane := self._lanes.get(key)) is not None and not lane.waiting:
                del self._lanes[key]

    def _give_up(self, key: str) -> None:
        """The key's slot stays half moved: what waits for it shall not try as long, one after the other."""
        lane = self._lanes.get(key)
        while lane is not None and lane.waiting:
            self._in_lanes -= 1
            lane.waiting.popleft().lose(RedisUnavailable("Redis is moving a slot"))

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
        """Once a minute at most: what keeps failing must not flood the log."""
        if time.monotonic() - self._complained_at >= 60:
            self._complained_at = time.monotonic()
            log.warning(event, redis=str(self.address), reason=_words(error))


def _asking(reply: ResponseError) -> Endpoint | None:
    if isinstance(reply, AskError) and not isinstance(reply, MovedError):
        return reply.host, reply.port
    return None


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
