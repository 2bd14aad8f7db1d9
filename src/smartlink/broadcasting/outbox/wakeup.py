"""Wakes workers after a commit: in this process, through PostgreSQL's NOTIFY, or through Redis.

Wake-ups only save time: a worker's sweep finds events whose wake-up was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.broadcasting.outbox.statements import NOTIFY_CHANNEL

__all__ = ["PostgresListener", "RedisBell", "RedisListener", "SqliteListener", "Wakeup", "WakeupListener"]

_REDIS_CHANNEL = "smartlink:outbox"
_TRY_AGAIN_S = 1.0
_ASK_EVERY_S = 10.0
_LOOK_EVERY_S = 0.25
_GATHER_S = 0.005
_TO_ONESELF = "hear:"
_REDIS_TIMEOUT_S = 2.0

_log = logging.getLogger("smartlink.broadcasting.outbox")


class Wakeup:
    """Wakes relays in this process. May be set from any thread; calls listeners in their own event loops."""

    def __init__(self) -> None:
        self._listeners: tuple[tuple[asyncio.AbstractEventLoop, Callable[[], None]], ...] = ()
        self._changing = threading.Lock()

    def set(self) -> None:
        """Wake the listeners, if any."""
        for loop, on_wakeup in self._listeners:
            if asyncio._get_running_loop() is loop:  # noqa: SLF001 - get_running_loop raises, and costs more
                on_wakeup()
            else:
                with contextlib.suppress(RuntimeError):  # that loop has been closed
                    loop.call_soon_threadsafe(on_wakeup)

    @contextlib.contextmanager
    def calling(self, on_wakeup: Callable[[], None]) -> Any:
        """Within this block, call `on_wakeup` in the running loop at each wake-up."""
        listener = (asyncio.get_running_loop(), on_wakeup)
        with self._changing:
            self._listeners = (*self._listeners, listener)
        try:
            yield
        finally:
            with self._changing:
                self._listeners = tuple(each for each in self._listeners if each is not listener)


class WakeupListener(Protocol):
    """Receives wake-ups from other processes.

    While an attribute `is_listening` is True, the relay sweeps less often.
    """

    async def listen(self, on_wakeup: Callable[[], None]) -> None:
        """Call `on_wakeup` at each wake-up, until cancelled. Reconnects after errors."""


async def _for_ever(name: str, listen_once: Callable[[], Awaitable[None]]) -> None:
    is_reported = False
    while True:
        try:
            await listen_once()
            is_reported = False
        except Exception as error:  # noqa: BLE001 - without wake-ups, the sweep still finds events
            if not is_reported:
                _log.warning("outbox: cannot listen to %s, sweeping instead: %s: %s", name, type(error).__name__, error)
            is_reported = True
        await asyncio.sleep(_TRY_AGAIN_S)


class PostgresListener:
    """Receives wake-ups by LISTEN on its own connection, detached from the engine's pool. Requires asyncpg."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.is_listening = False
        """Whether it has received what it sent to itself lately."""

    async def listen(self, on_wakeup: Callable[[], None]) -> None:
        """Call `on_wakeup` at each wake-up, until cancelled. Reconnects after errors."""

        async def once() -> None:
            if self._engine.dialect.driver != "asyncpg":
                raise BroadcastConfigError(f"it requires the driver asyncpg, not {self._engine.dialect.driver}")
            async with self._engine.connect() as connection:
                raw: Any = (await connection.get_raw_connection()).driver_connection
                # Detached from the pool: it is ours for as long as it lasts, and is not reused.
                await connection.run_sync(lambda own: own.detach())
                gone = asyncio.Event()
                raw.add_termination_listener(lambda _: gone.set())
                own, has_received = f"{_TO_ONESELF}{secrets.token_hex(8)}", asyncio.Event()

                def on_notify(*told: Any) -> None:
                    if told[-1] == own:
                        has_received.set()
                    elif not told[-1].startswith(_TO_ONESELF):
                        on_wakeup()

                await raw.add_listener(NOTIFY_CHANNEL, on_notify)
                try:
                    while not gone.is_set():
                        # A connection that vanished, or one behind a pooler, never receives anything.
                        await self._notify_self(own, has_received)
                        self.is_listening = True
                        on_wakeup()
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(gone.wait(), _ASK_EVERY_S)
                finally:
                    self.is_listening = False
                    on_wakeup()

        await _for_ever("PostgreSQL", once)

    async def _notify_self(self, own: str, has_received: asyncio.Event) -> None:
        """Notify ourselves over another connection. Raises OSError if nothing arrives.

        Over the same connection it would arrive even behind a pooler.
        """
        has_received.clear()
        async with self._engine.connect() as another:
            await another.execute(select(func.pg_notify(NOTIFY_CHANNEL, own)))
        try:
            await asyncio.wait_for(has_received.wait(), _ASK_EVERY_S)
        except TimeoutError:
            raise OSError(
                "it does not receive its own NOTIFY; behind PgBouncer in transaction mode set DB_PGBOUNCER=true, or "
                "pass run_worker a listen_engine that bypasses it"
            ) from None


class SqliteListener:
    """Receives wake-ups from other processes on this machine: waits until the database's files change.

    On Linux, inotify reports changes at once; elsewhere, or if the system has no instance left, it compares times and
    sizes every 0.25 s. Any change wakes; one within the same tick of the file system's clock as the one before, and of
    the same size, is found by the sweep. Source: inotify(7).
    """

    def __init__(self, file: str) -> None:
        file = os.path.realpath(file)  # where SQLite keeps its log
        self._files = (file, f"{file}-wal")
        self._seen: tuple[tuple[int, int] | None, ...] = ()
        self._is_free = asyncio.Event()
        self._is_free.set()
        self.is_listening = True

    async def listen(self, on_wakeup: Callable[[], None]) -> None:
        """Call `on_wakeup` at each change, until cancelled."""
        self.pass_over()
        async with contextlib.aclosing(_changes(self._files)) as changes:
            async for _ in changes:
                await self._is_free.wait()
                before = self._seen
                self.pass_over()
                if self._seen != before:
                    on_wakeup()
                    # Combine the changes of a busy moment into one.
                    await asyncio.sleep(_GATHER_S)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wake nobody within this block: the caller writes, and then calls `pass_over` or reads itself."""
        self._is_free.clear()
        try:
            yield
        finally:
            self._is_free.set()

    def pass_over(self) -> None:
        """Take what the files are now as seen: the caller has just written, and seen what others wrote before."""
        self._seen = self._look()

    def _look(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_changed_at(file) for file in self._files)


async def _changes(files: Sequence[str]) -> AsyncGenerator[None]:
    """Yield when one of `files`, all in one folder, may have changed."""
    try:
        async with contextlib.aclosing(_reported_changes(files)) as changes:
            async for _ in changes:
                yield
    except (ImportError, OSError) as error:
        _log.info("outbox: looking for changes of the database every %g s: %s", _LOOK_EVERY_S, error)
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        yield


async def _reported_changes(files: Sequence[str]) -> AsyncGenerator[None]:
    """Raises ImportError or OSError where the system does not report changes."""
    from asyncinotify import Inotify, Mask

    names = {Path(file).name for file in files}
    with Inotify() as reports:
        # The folder, as SQLite deletes and creates its write-ahead log.
        reports.add_watch(Path(files[0]).parent, Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO)
        async for report in reports:
            if str(report.name) in names:
                yield


def _changed_at(file: str) -> tuple[int, int] | None:
    """When a file was changed in nanoseconds, and its size; None without the file."""
    try:
        found = os.stat(file)  # noqa: PTH116 - four times a second
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class RedisListener:
    """Receives the wake-ups of a `RedisBell`, for `queues` or for all."""

    def __init__(self, url: str, queues: tuple[str, ...] | None = None) -> None:
        self._url = url
        self._channels = [_REDIS_CHANNEL] if queues is None else [f"{_REDIS_CHANNEL}:{queue}" for queue in queues]
        self._takes_all = queues is None
        self.is_listening = False
        """Whether it is subscribed."""

    async def listen(self, on_wakeup: Callable[[], None]) -> None:
        """Call `on_wakeup` at each wake-up, until cancelled. Reconnects after errors."""
        import redis.asyncio

        async def once() -> None:
            client = redis.asyncio.Redis.from_url(
                self._url, socket_timeout=2 * _ASK_EVERY_S, socket_connect_timeout=_REDIS_TIMEOUT_S
            )
            try:
                async with client.pubsub() as subscription:
                    if self._takes_all:
                        await subscription.psubscribe(f"{_REDIS_CHANNEL}:*")
                    else:
                        await subscription.subscribe(*self._channels)
                    self.is_listening = True
                    on_wakeup()
                    await self._listen(subscription, on_wakeup)
            finally:
                self.is_listening = False
                on_wakeup()
                await client.aclose()

        await _for_ever("Redis", once)

    async def _listen(self, subscription: Any, on_wakeup: Callable[[], None]) -> None:
        """Receive messages. Raises OSError if a ping gets no answer: a dead subscription shows no other sign."""
        is_asked = False
        while True:
            message = await subscription.get_message(timeout=_ASK_EVERY_S)
            if message is not None:
                is_asked = False
                if message["type"] in ("message", "pmessage"):
                    on_wakeup()
            elif is_asked:
                raise OSError("the subscription is dead")
            else:
                await subscription.ping()
                is_asked = True


class RedisBell:
    """Wakes workers on other machines through Redis. A thread publishes, so `ring` never blocks or raises.

    Calls of `ring` during a publish are combined into one.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._queues: set[str] = set()
        self._lock = threading.Lock()
        self._is_rung = threading.Event()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def ring(self, queues: set[str]) -> None:
        """Wake the workers of `queues`."""
        with self._lock:
            if self._is_closed:
                return
            self._queues |= queues
            if self._thread is None or not self._thread.is_alive():  # as it is not after a fork
                self._thread = threading.Thread(target=self._publish, name="outbox bell", daemon=True)
                self._thread.start()
        self._is_rung.set()

    def close(self) -> None:
        """Publish outstanding wake-ups and end the thread."""
        with self._lock:
            self._is_closed = True
        self._is_rung.set()
        if self._thread is not None:
            self._thread.join(2 * _REDIS_TIMEOUT_S)

    def _publish(self) -> None:
        import redis
        from redis.exceptions import RedisError

        client = redis.Redis.from_url(
            self._url, socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
        )
        is_reported = False
        while not (self._is_closed and not self._queues):
            self._is_rung.wait()
            self._is_rung.clear()
            with self._lock:
                queues, self._queues = self._queues, set()
            try:
                for queue in queues:
                    client.publish(f"{_REDIS_CHANNEL}:{queue}", queue)
                is_reported = False
            except (RedisError, OSError) as error:
                if not is_reported:
                    _log.warning("outbox: cannot wake workers through Redis, they sweep: %s", type(error).__name__)
                is_reported = True
        client.close()
