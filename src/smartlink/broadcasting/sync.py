"""Broadcasting from blocking code: Django and Flask views, scripts, Celery tasks.

broadcaster = SyncBroadcaster.from_settings()
broadcaster.send(OrderShipped(order), to_others=True)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from smartlink.broadcasting.anonymous import AnonymousBroadcast
from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.channels import Channel, PresenceChannel, PrivateChannel
from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastError, BroadcastUnavailable
from smartlink.broadcasting.events import AnonymousEvent, BroadcastEvent
from smartlink.broadcasting.revocation import Revocation, revocation
from smartlink.broadcasting.threads import ThreadSignal, threads_here

__all__ = ["SyncBroadcaster"]


_BEGIN_S = 30.0


class _Worker:
    """A thread that runs a broadcaster in its own event loop."""

    def __init__(self, build: Callable[[], Broadcaster]) -> None:
        self.pid = os.getpid()
        self._threads = threads_here()
        self._has_ended: ThreadSignal | None = None
        self.broadcaster = build()
        has_begun = self._has_begun = self._threads.signal()
        # A daemon thread, so that a process which never closes can still exit.
        self._threads.start(self._run, "smartlink-broadcasting")
        if not has_begun.wait(_BEGIN_S):
            raise RuntimeError(f"the broadcaster's thread did not start within {_BEGIN_S:g} s")

    def call(self, what: Coroutine[Any, Any, None], within_s: float) -> None:
        is_done, tasks = self._threads.signal(), deque[asyncio.Task[None]]()

        def begin() -> None:
            task = self.loop.create_task(what)
            tasks.append(task)
            task.add_done_callback(lambda _: is_done.set())

        try:
            self.loop.call_soon_threadsafe(begin)
        except RuntimeError:  # the loop is closed
            what.close()
            raise BroadcastUnavailable("the broadcaster has been closed") from None
        if not is_done.wait(within_s):
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
            raise BroadcastUnavailable(f"not done within {within_s:g} s", answered=True)
        try:
            tasks[0].result()
        except asyncio.CancelledError:
            raise BroadcastUnavailable("the broadcaster has been closed", answered=True) from None

    def stop(self, within_s: float) -> None:
        self.call(self._end(within_s), 2 * within_s)
        has_ended = self._has_ended = self._threads.signal()
        self.loop.call_soon_threadsafe(self.loop.stop)
        has_ended.wait(within_s)

    async def _end(self, within_s: float) -> None:
        """Wait for sends of other threads, at most `within_s`, then close the connections."""
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=within_s)
        await self.broadcaster.aclose()

    def _run(self) -> None:
        # The loop is created here because gevent's selectors belong to the thread that creates them.
        with asyncio.Runner() as runner:
            self.loop = runner.get_loop()
            if (executor := self._threads.executor()) is not None:
                self.loop.set_default_executor(executor)
            self._has_begun.set()
            self.loop.run_forever()
        if self._has_ended is not None:
            self._has_ended.set()


class SyncBroadcaster:
    """A `Broadcaster` for synchronous code. Create one per process and keep it, so that connections are reused.

    `build` returns the broadcaster. It runs in its own thread, which starts on first use and again after a fork. The
    thread is a real one under gevent and eventlet too, so other green threads run while one sends. Any number of
    threads may send at once; no call takes longer than `wait_s`. Methods that send raise RuntimeError inside a running
    event loop, which they would block; use `await Broadcaster.send(...)` there.
    """

    def __init__(self, build: Callable[[], Broadcaster], *, wait_s: float = 30.0) -> None:
        self._build = build
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    @classmethod
    def from_settings(cls, settings: BroadcastSettings | None = None) -> Self:
        """Build like `Broadcaster.from_settings`. Settings are checked at once. Raises BroadcastConfigError."""
        settings = settings or BroadcastSettings()
        Broadcaster.from_settings(settings)  # built only to check the settings: nothing connects yet
        return cls(lambda: Broadcaster.from_settings(settings))

    @property
    def broadcaster(self) -> Broadcaster:
        """The broadcaster behind this one. Use it to pack; its coroutines must run in its own thread."""
        return self._started().broadcaster

    def send(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
    ) -> None:
        """Send like `Broadcaster.send`, and return when done. Raises the same, and RuntimeError inside a loop."""
        _refuse_inside_a_loop()
        worker = self._started()
        try:
            # Packed here, in the request's own context.
            packed = worker.broadcaster.pack_to_send(
                event, socket_id=socket_id, to_others=to_others, to_other_users=to_other_users
            )
            worker.call(worker.broadcaster.send_envelopes(packed), self._wait_s)
        except BroadcastError as error:
            worker.broadcaster.rescue(event, error)

    def pack(
        self,
        event: BroadcastEvent,
        *,
        socket_id: str | None = None,
        to_others: bool = False,
        to_other_users: str | int | None = None,
        receipts: bool | None = None,
    ) -> tuple[Envelope, ...]:
        """Pack like `Broadcaster.pack`."""
        broadcaster = self._started().broadcaster
        return broadcaster.pack(
            event, socket_id=socket_id, to_others=to_others, to_other_users=to_other_users, receipts=receipts
        )

    def send_envelopes(self, envelopes: Sequence[Envelope]) -> None:
        """Send like `Broadcaster.send_envelopes`. Raises RuntimeError inside a loop."""
        _refuse_inside_a_loop()
        worker = self._started()
        worker.call(worker.broadcaster.send_envelopes(envelopes), self._wait_s)

    def revoke(
        self,
        subject: str | int | Channel,
        /,
        channel: Channel | str | None = None,
        *,
        everyone: bool = False,
        reason: str | None = None,
        via: str | None = None,
    ) -> None:
        """Revoke like `Broadcaster.revoke`, and return when done. Raises the same, and RuntimeError inside a loop."""
        self.send_revocation(revocation(subject, channel, everyone=everyone, reason=reason), via)

    def send_revocation(self, revoked: Revocation, via: str | None = None) -> None:
        """Carry out a revocation like `Broadcaster.send_revocation`. Raises RuntimeError inside a loop."""
        _refuse_inside_a_loop()
        worker = self._started()
        worker.call(worker.broadcaster.send_revocation(revoked, via), self._wait_s)

    def on(self, *channels: Channel) -> AnonymousBroadcast[None]:
        """Start an event without a class: `broadcaster.on(Channel("news")).as_("news.out").send()`."""
        return AnonymousBroadcast(self.send, AnonymousEvent(channels))

    def private(self, name: str) -> AnonymousBroadcast[None]:
        """Same as `on(PrivateChannel(name))`."""
        return self.on(PrivateChannel(name))

    def presence(self, name: str) -> AnonymousBroadcast[None]:
        """Same as `on(PresenceChannel(name))`."""
        return self.on(PresenceChannel(name))

    def close(self) -> None:
        """Wait for sends of other threads, then close the connections and the thread. A later use starts again."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None and worker.pid == os.getpid():
            worker.stop(self._wait_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> _Worker:
        with self._lock:
            # After a fork, the parent's thread does not exist here, and its sockets are not ours.
            if self._worker is None or self._worker.pid != os.getpid():
                self._worker = _Worker(self._build)
            return self._worker


def _refuse_inside_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "a synchronous send would block the running event loop; use `await send_now(...)` or "
        "`await Broadcaster.send(...)`"
    )
