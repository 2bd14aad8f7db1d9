"""Starts real threads, and waits for them, even if gevent or eventlet have replaced `threading` with green ones.

asyncio has one running loop per real thread: a loop in a green thread would appear to run in all the others too.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

__all__ = ["ThreadSignal", "Threads", "threads_here"]


class ThreadSignal(Protocol):
    """An event to set once. The thread that created it can wait for it without blocking other green threads."""

    def set(self) -> None:
        """Set the event, from any thread."""

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds. Returns whether the event was set."""


class Threads:
    """Starts real threads."""

    def start(self, run: Callable[[], None], name: str) -> None:
        """Run `run` in a daemon thread."""
        threading.Thread(target=run, name=name, daemon=True).start()

    def signal(self) -> ThreadSignal:
        """Return an event that the calling thread can wait for."""
        return threading.Event()

    def executor(self) -> ThreadPoolExecutor | None:
        """Return the executor for blocking calls of a loop in such a thread; None for the default."""
        return None


def threads_here() -> Threads:
    """Return the implementation for this process, depending on gevent's and eventlet's patches."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return _BeneathGevent(monkey)
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return _BeneathEventlet(patcher)
    return Threads()


class _Green(Threads):
    def executor(self) -> ThreadPoolExecutor | None:
        return _Aside()


class _Aside(ThreadPoolExecutor):
    """A green thread of the loop's own real one for each call. The process's end waits for those of other executors,
    and waits for ever: they run in a real thread that does not run any more."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call(*args, **named)
            except Exception as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, daemon=True).start()
        return future


class _BeneathGevent(_Green):
    def __init__(self, monkey: Any) -> None:
        self._start = monkey.get_original("_thread", "start_new_thread")

    def start(self, run: Callable[[], None], name: str) -> None:
        self._start(run, ())

    def signal(self) -> ThreadSignal:
        return _GeventSignal()


class _GeventSignal:
    def __init__(self) -> None:
        hub: Any = importlib.import_module("gevent.hub")
        event: Any = importlib.import_module("gevent.event")
        self._loop = hub.get_hub().loop
        self._event = event.Event()

    def set(self) -> None:
        self._loop.run_callback_threadsafe(self._event.set)

    def wait(self, timeout: float) -> bool:
        return bool(self._event.wait(timeout))


class _BeneathEventlet(_Green):
    def __init__(self, patcher: Any) -> None:
        self._real = patcher.original("threading")

    def start(self, run: Callable[[], None], name: str) -> None:
        self._real.Thread(target=run, name=name, daemon=True).start()

    def signal(self) -> ThreadSignal:
        return _EventletSignal(self._real.Event())


class _EventletSignal:
    def __init__(self, event: Any) -> None:
        self._event = event

    def set(self) -> None:
        self._event.set()

    def wait(self, timeout: float) -> bool:
        # In eventlet's pool of real threads; green ones go on meanwhile.
        pool: Any = importlib.import_module("eventlet.tpool")
        return bool(pool.execute(self._event.wait, timeout))
