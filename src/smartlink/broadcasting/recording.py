"""The part of `Broadcasting` that needs SQLAlchemy: the outbox's tables, announcing in sessions, and the relay."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from sqlalchemy import URL, Engine, MetaData, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase

from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.broadcasting.events import BroadcastEvent
from smartlink.broadcasting.outbox import Outbox, Until, Wakeup, define_tables, engine_for, run_worker
from smartlink.broadcasting.sessions import AnySession, SessionBroadcasts
from smartlink.broadcasting.threads import Threads, ThreadSignal, threads_here

__all__ = ["AnySession", "Base", "Database", "Recording", "RelayThread"]


class HasMetadata(Protocol):
    """An object with an application's tables: a declarative base, a registry, Flask-SQLAlchemy's `db`."""

    @property
    def metadata(self) -> MetaData: ...


Base = type[DeclarativeBase] | HasMetadata | MetaData
Database = Engine | AsyncEngine | URL | str

_MORE_THAN_A_CALL_S = 0.5
_BEGIN_S = 10.0
_END_S = 10.0
_DRIVERS = {"postgresql": "asyncpg", "postgres": "asyncpg", "sqlite": "aiosqlite"}
_log = logging.getLogger("smartlink.broadcasting")


class Recording:
    """Announces in sessions and relays the recorded events. Without `database`, uses that of the first session."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        base: Base,
        database: Database | None,
        *,
        send_live: Callable[[Sequence[Envelope]], object],
        timeout_s: float,
    ) -> None:
        metadata: object = base if isinstance(base, MetaData) else getattr(base, "metadata", None)
        if not isinstance(metadata, MetaData):
            raise BroadcastConfigError(
                f"base is your declarative base or its MetaData, the outbox's tables go there; not {base!r:.80}"
            )
        self.tables = define_tables(metadata)
        self.outbox = Outbox(self.tables)
        self.sessions = SessionBroadcasts(broadcaster, self.outbox, send_live=send_live)
        self._broadcaster = broadcaster
        self._database = database
        self._database_found = Wakeup()
        self._send_timeout_s = timeout_s + _MORE_THAN_A_CALL_S

    def announce(
        self,
        session: AnySession,
        event: BroadcastEvent,
        *,
        to_others: bool,
        to_other_users: str | int | None,
        receipts: bool | None,
    ) -> None:
        """Announce like `SessionBroadcasts.announce`, in any session."""
        own = self.sessions.follow(session)
        self.sessions.announce(own, event, to_others=to_others, to_other_users=to_other_users, receipts=receipts)
        if self._database is None:
            self._database = self.outbox.engine_of(own)
            self._database_found.set()

    def check_database(self) -> None:
        """Check the database, if it is known. Raises BroadcastConfigError if a relay in this loop cannot use it."""
        if self._database is not None:
            _checked_url(self._database, is_own_loop=False)

    async def relay(
        self,
        stop: asyncio.Event | None,
        *,
        is_own_loop: bool,
        queues: Sequence[str] | None = None,
        concurrency: int = 4,
        until: Until | None = None,
    ) -> None:
        """Send recorded events until `stop` is set, or without it until SIGINT or SIGTERM.

        With `is_own_loop`, it uses an engine of its own. Raises BroadcastConfigError for an unsupported database.
        """
        database = self._database if stop is None else await self._known_database(stop)
        if database is None:
            if stop is None:
                raise BroadcastConfigError(
                    "a worker needs the database: Broadcasting.from_env(base=Base, engine=engine)"
                )
            return
        async with _opened(database, is_own_loop=is_own_loop) as engine:
            await run_worker(
                engine,
                self.tables,
                self._broadcaster,
                queues=queues,
                concurrency=concurrency,
                until=until,
                stop=stop,
                wakeup=self.outbox.wakeup,
                send_timeout_s=self._send_timeout_s,
            )

    async def _known_database(self, stop: asyncio.Event) -> Database | None:
        """Wait for the database to be known and return it; None if `stop` is set first."""
        found = asyncio.Event()
        with self._database_found.calling(found.set):
            if self._database is None:
                waiting = [asyncio.create_task(event.wait()) for event in (found, stop)]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in waiting:
                    task.cancel()
        return self._database


@asynccontextmanager
async def _opened(database: Database, *, is_own_loop: bool) -> AsyncIterator[AsyncEngine]:
    """Yield the application's engine if it is async and runs in this loop, else a new one on the same database.

    Raises BroadcastConfigError as `_checked_url` does.
    """
    url = _checked_url(database, is_own_loop=is_own_loop)
    if isinstance(database, Engine) and database.dialect.is_async:
        database = AsyncEngine(database)
    if isinstance(database, AsyncEngine) and not is_own_loop:
        yield database
        return
    engine = engine_for(url)
    try:
        yield engine
    finally:
        await engine.dispose()


def _checked_url(database: Database, *, is_own_loop: bool) -> URL:
    """Return the database's URL with an async driver. Raises BroadcastConfigError if a relay cannot use it."""
    try:
        url = make_url(database) if isinstance(database, str | URL) else database.url
    except ArgumentError:
        raise BroadcastConfigError(
            "the engine's URL cannot be read; it looks like postgresql://user@host/shop or sqlite:///shop.db"
        ) from None
    backend = url.get_backend_name()
    driver = _DRIVERS.get(backend)
    if driver is None:
        raise BroadcastConfigError(f"the outbox supports sqlite and postgresql, not {backend}")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise BroadcastConfigError(
            "the relay needs its own connections, but an in-memory SQLite database has only one: use a file, "
            "or relay=False"
        )
    is_shared = not is_own_loop and not isinstance(database, str | URL) and database.dialect.is_async
    if not is_shared and importlib.util.find_spec(driver) is None:
        raise BroadcastConfigError(f"the relay needs an asynchronous driver: pip install {driver}, or relay=False")
    if backend != "sqlite":
        backend = "postgresql"
        if "sslmode" in url.query:
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": url.query["sslmode"]})
    return url.set(drivername=f"{backend}+{driver}")


class RelayThread:
    """Runs a relay in its own thread, for processes without an event loop.

    Starts with the first `ensure`, and again after a fork. Releases its leases when closed, and at process exit.
    """

    def __init__(self, relay: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        self._relay = relay
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._has_ended: ThreadSignal | None = None

    def ensure(self) -> None:
        """Start the relay in this process, unless it runs."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            threads = threads_here()
            if type(threads) is not Threads:
                _log.warning("no relay runs in a process with green threads: start a worker to send recorded events")
                return
            self._stop, self._loop, self._has_ended = asyncio.Event(), None, threads.signal()
            has_begun = threads.signal()
            threads.start(partial(self._run, self._stop, has_begun, self._has_ended), "smartlink-relay")
            has_begun.wait(_BEGIN_S)
            atexit.register(self.close)

    def close(self) -> None:
        """Stop the relay, if it runs in this process, and release its leases. A later `ensure` starts it again."""
        with self._lock:
            loop, has_ended = self._loop, self._has_ended
            if self._pid != os.getpid() or loop is None or has_ended is None:
                return
            atexit.unregister(self.close)
            with contextlib.suppress(RuntimeError):  # it has already stopped
                loop.call_soon_threadsafe(self._stop.set)
            has_ended.wait(_END_S)
            self._pid = self._loop = self._has_ended = None

    def _run(self, stop: asyncio.Event, has_begun: ThreadSignal, has_ended: ThreadSignal) -> None:
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                has_begun.set()
                runner.run(self._relayed(stop))
        except BroadcastConfigError as error:
            _log.error("the relay has stopped, recorded events wait: %s", error)
        except Exception:  # noqa: BLE001 - nothing waits for the thread
            _log.exception("the relay has stopped, recorded events wait")
        finally:
            has_ended.set()

    async def _relayed(self, stop: asyncio.Event) -> None:
        await self._relay(stop)
