"""The parent of worker processes: starts, monitors, replaces and stops them.

It holds the listening sockets, so that none is closed while a worker is replaced, and the worker hub, so that old and
new workers act as one server meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog

from smartlink.background import Background, ended
from smartlink.backoff import Backoff
from smartlink.server.workers.hub import WorkerHub
from smartlink.server.workers.messages import Drain, Reload
from smartlink.server.workers.peer import WorkerPeer

__all__ = ["Supervisor", "WorkersFailed"]

START_S = 90.0
"""How long a worker may take to start accepting; generous, for busy machines."""
SILENT_S = 8.0
"""A worker that is silent for this long is killed, so that its clients reconnect elsewhere."""
TICK_S = 1.0
GRACE_S = 10.0
"""How long a worker may take to exit after the drain."""
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 10.0

log = structlog.get_logger(__name__)


class WorkersFailed(Exception):
    """Workers did not start; the message is the reason one of them gave."""


@dataclass(frozen=True, slots=True, eq=False)
class _Worker:
    slot: int
    process: asyncio.subprocess.Process
    peer: WorkerPeer
    exited: asyncio.Task[int]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class Supervisor:
    """Keeps one worker running per slot. `command` starts a worker; `slots` holds the listening sockets of each."""

    def __init__(
        self, worker_hub: WorkerHub, command: Sequence[str], slots: Sequence[Sequence[socket.socket]], drain_s: float
    ) -> None:
        self._worker_hub = worker_hub
        self._command = tuple(command)
        self._slots = slots
        self._drain_s = drain_s
        self._background = Background()
        self._workers: list[_Worker] = []
        self._launched: set[_Worker] = set()
        """All processes that have not exited."""
        self._keepers: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._replacing = asyncio.Lock()
        self._is_stopping = False

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    async def replace(self) -> None:
        """Start a worker in each slot and keep it running; once all accept, drain the old ones.

        Raises WorkersFailed and leaves the old ones running if a worker does not start.
        """
        async with self._replacing:
            if self._ticker is None:
                self._ticker = self._background.start("checking that workers respond", self._tick())
            fresh: list[_Worker] = []
            try:
                for slot in range(len(self._slots)):
                    fresh.append(await self._launch(slot))
                    self._check_stop()
                reasons = await asyncio.gather(*(self._until_ready(worker) for worker in fresh))
                if failed := [reason for reason in reasons if reason is not None]:
                    raise WorkersFailed(failed[0])
                await self._dismiss_keepers()
                self._check_stop()
            except BaseException:
                await self._end(fresh, drain_s=0)
                raise
            old, self._workers = self._workers, fresh
            self._keepers = [
                self._background.start(f"keeping worker {slot + 1} alive", self._keep(slot))
                for slot in range(len(fresh))
            ]
            if old:
                for worker in old:
                    worker.peer.is_leaving = True
                    worker.peer.send(Drain(is_replaced=True))
                task = asyncio.get_running_loop().create_task(self._end(old, self._drain_s))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    def reload(self) -> None:
        """Ask the workers to reload applications and certificate."""
        for worker in self._workers:
            worker.peer.send(Reload())

    async def stop(self) -> None:
        """Close the listeners here, drain all workers, and wait until they exit.

        A replacement in progress fails with WorkersFailed.
        """
        self._is_stopping = True
        await self._dismiss_keepers()
        # Otherwise the kernel would go on accepting here after the workers have stopped to, and nobody would answer.
        for listener in {listener for own in self._slots for listener in own}:
            listener.close()
        for worker in self._launched:
            worker.peer.send(Drain(is_replaced=False))
        await self._end(tuple(self._launched), self._drain_s)
        async with self._replacing:
            pass  # a replacement in progress sees the stop and ends what it started
        if self._leaving:
            await asyncio.wait(tuple(self._leaving))
        await ended(self._ticker)
        self._workers = []
        self._worker_hub.close()

    def _check_stop(self) -> None:
        if self._is_stopping:
            raise WorkersFailed("the server is stopping")

    async def _launch(self, slot: int) -> _Worker:
        here, there = socket.socketpair()
        with there:
            listeners = [listener.fileno() for listener in self._slots[slot]]
            order = self._worker_hub.order_end().fileno()
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    f"--line={there.fileno()}",
                    f"--order={order}",
                    f"--listen={','.join(map(str, listeners))}",
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(there.fileno(), order, *listeners),
                    # Terminal signals go to the parent alone, which tells the workers what to do.
                    start_new_session=True,
                )
            except BaseException:
                here.close()
                raise
        exited = asyncio.get_running_loop().create_task(process.wait())
        worker = _Worker(slot, process, self._worker_hub.peer(here), exited)
        self._launched.add(worker)
        exited.add_done_callback(lambda _: self._on_exit(worker))
        return worker

    def _on_exit(self, worker: _Worker) -> None:
        self._launched.discard(worker)
        worker.peer.close()

    async def _until_ready(self, worker: _Worker) -> str | None:
        """Wait until `worker` accepts. Returns the reason if it does not."""
        peer = worker.peer
        changed = asyncio.get_running_loop().create_task(peer.has_changed.wait())
        await asyncio.wait((changed, worker.exited), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        changed.cancel()
        if peer.is_ready and peer.is_open:
            return None
        if peer.failure is not None:
            return peer.failure
        if peer.is_open:
            return f"a worker was not ready within {START_S:g} s"
        await asyncio.wait((worker.exited,), timeout=START_S)
        return f"a worker exited with code {worker.process.returncode} before it was ready; see the log"

    async def _keep(self, slot: int) -> None:
        """Restart the worker of this slot whenever it exits."""
        backoff = Backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S, jitter=0)
        pause_s = backoff.next_s()
        while True:
            worker = self._workers[slot]
            code = await asyncio.shield(worker.exited)
            log.error("worker exited, restarting it", pid=worker.process.pid, code=code)
            while True:
                await asyncio.sleep(pause_s)
                pause_s = backoff.next_s()
                try:
                    fresh = await self._launch(slot)
                except OSError as error:  # out of processes or descriptors: may pass soon
                    log.error("worker process could not be started", reason=str(error), retry_in_s=pause_s)
                    continue
                try:
                    reason = await self._until_ready(fresh)
                except BaseException:
                    fresh.kill()
                    raise
                if reason is None:
                    break
                log.error("worker failed to start", reason=reason, retry_in_s=pause_s)
                await self._end((fresh,), drain_s=0)
            self._workers[slot] = fresh
            settled = asyncio.get_running_loop().time() + MAX_BACKOFF_S
            await asyncio.wait((fresh.exited,), timeout=MAX_BACKOFF_S)
            if asyncio.get_running_loop().time() >= settled:
                backoff.reset()
                pause_s = backoff.next_s()

    async def _dismiss_keepers(self) -> None:
        keepers, self._keepers = self._keepers, []
        await ended(*keepers)

    async def _end(self, workers: Iterable[_Worker], drain_s: float) -> None:
        """Wait until `workers` exit; kill those that do not in time. With `drain_s` 0, send SIGTERM first."""
        workers = tuple(workers)
        if not workers:
            return
        if drain_s == 0:
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.send_signal(signal.SIGTERM)
        exits = [worker.exited for worker in workers]
        _, late = await asyncio.wait(exits, timeout=drain_s + GRACE_S)
        for worker in workers:
            if worker.exited in late:
                log.error("worker did not exit in time, killed", pid=worker.process.pid)
                worker.kill()
        if late:
            await asyncio.wait(late)

    async def _tick(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if now - last > 3 * TICK_S:
                # This process was stalled: messages from the workers have not been read yet.
                for worker in self._launched:
                    worker.peer.heard_at = now
            last = now
            self._worker_hub.sweep(now)
            for worker in self._launched:
                if worker.peer.is_ready and now - worker.peer.heard_at > SILENT_S:
                    log.error("worker not responding, killed", pid=worker.process.pid)
                    worker.kill()
