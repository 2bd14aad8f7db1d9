"""The realtime server of one machine: in this process, or in worker processes with this one as their parent.

When a single process restarts, it starts its successor as a worker, drains, and stays as the parent, so that systemd or
the container keeps the same main process.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from smartlink.prometheus import Samples
from smartlink.server.apps.reloading import reload_apps
from smartlink.server.net.sockets import open_listeners
from smartlink.server.net.tls import Certificate
from smartlink.server.run.bootstrap import build, endpoint_for, operators_for, parent_for
from smartlink.server.run.control import CommandFailed, ControlSocket, control_path, listen_for_operators
from smartlink.server.run.engines import uses_redis
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.run.supervisor import Supervisor, WorkersFailed
from smartlink.server.settings.config import ServerSettings
from smartlink.server.workers.single import SingleOverview

__all__ = ["Machine", "worker_count"]

log = structlog.get_logger(__name__)


def worker_count(settings: ServerSettings) -> int:
    """The number of workers: as configured, else one per core available to this process."""
    if settings.reverb_server_workers is not None:
        return settings.reverb_server_workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Machine:
    """Starts, restarts, reloads and stops the server processes of this machine.

    `command` starts a worker once the descriptors of its link and sockets are appended.
    """

    def __init__(
        self, settings: ServerSettings, command: Sequence[str], show_frames: Callable[[str], None] | None = None
    ) -> None:
        self._settings = settings
        self._command = command
        self._show_frames = show_frames
        self._workers = worker_count(settings)
        self._parent = parent_for(settings)
        self._delivers_webhooks = self._parent.delivers_webhooks
        self._slots: list[list[socket.socket]] = []
        self._supervisor: Supervisor | None = None
        self._server: RealtimeServer | None = None
        self._retiring: asyncio.Task[None] | None = None
        self._reloads: set[asyncio.Task[None]] = set()
        self._control: ControlSocket | None = None
        self._operators = operators_for(
            self._parent, self._samples, lambda: None if self._server is None else self._server.agent
        )
        self._observed = endpoint_for(settings, lambda: self.port, self._samples, self._operators)
        self.port = settings.reverb_server_port

    async def start(self) -> None:
        """Listen and serve.

        Raises OSError if the port is unavailable, SocketUnusable, BadCertificate, UnsafeSettings, WorkersFailed.
        """
        settings = self._settings
        settings.check_start()
        Certificate.of(settings)  # report a bad certificate before starting anything
        self._slots = open_listeners(settings, self._workers)
        try:
            self.port = self._slots[0][0].getsockname()[1]
            await self._observe()
            self._supervisor = Supervisor(
                self._parent.worker_hub, self._command, self._slots, settings.reverb_server_drain_seconds
            )
            if self._delivers_webhooks:
                await self._parent.start()
            if self._workers == 1:
                await self._serve_here()
            else:
                await self._supervisor.replace()
            self._control = ControlSocket(
                control_path(settings, self.port), {"restart": self._restart, "reload": self._reload}
            )
            await self._control.start()
        except BaseException:
            await self.stop()
            raise

    def reload(self) -> None:
        """Reload applications and certificates."""
        if self._delivers_webhooks:
            task = asyncio.get_running_loop().create_task(reload_apps(self._parent.apps))
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)
        if self._server is not None:
            self._server.reload()
        if self._supervisor is not None:
            self._supervisor.reload()

    async def stop(self) -> None:
        """Drain and stop everything."""
        if self._control is not None:
            await self._control.stop()
        if self._delivers_webhooks:
            self._parent.webhooks.drain()
        ends = [] if self._supervisor is None else [self._supervisor.stop()]
        if self._server is not None:
            ends.append(self._server.stop())
        await asyncio.gather(*ends)
        await self._operators.stop()
        await self._observed.stop()
        if self._retiring is not None:
            await self._retiring
        if self._delivers_webhooks:
            for task in self._reloads:
                task.cancel()
            await self._parent.stop()
        self._close_sockets()

    async def _observe(self) -> None:
        try:
            await self._observed.start()
        except OSError as error:
            raise WorkersFailed(
                f"REVERB_METRICS_PORT={self._observed.port} at {self._settings.reverb_metrics_host} is unavailable: "
                f"{error.strerror or error}"
            ) from None
        await listen_for_operators(self._observed, self._settings, self.port)
        self._operators.start()

    def _samples(self) -> Samples:
        """Samples of all workers; counters include those of past workers."""
        return self._parent.worker_hub.totals().figures

    def _close_sockets(self) -> None:
        for listener in {listener for own in self._slots for listener in own}:
            listener.close()
        if self._settings.reverb_server_unix_socket is not None and self._slots:
            Path(self._settings.reverb_server_unix_socket).unlink(missing_ok=True)

    async def _serve_here(self) -> None:
        parent, settings = self._parent, self._settings
        if uses_redis(settings):
            server = build(settings, show_frames=self._show_frames)
        else:
            server = build(
                settings,
                None,
                parent.engines,
                webhooks=parent.webhooks,
                overview=SingleOverview(parent.worker_hub),
                show_frames=self._show_frames,
            )
        parent.worker_hub.local_figures = server.rates.figures
        await server.start([listener.dup() for listener in self._slots[0]])
        self._server = server

    async def _restart(self) -> dict[str, Any]:
        """Start new workers, then drain the old ones. Raises CommandFailed and leaves the old ones running if that
        fails.
        """
        assert self._supervisor is not None  # noqa: S101 — commands come after the start
        try:
            await self._supervisor.replace()
        except WorkersFailed as error:
            log.error("restart failed, the old workers keep running", reason=str(error))
            raise CommandFailed(str(error)) from None
        server, self._server = self._server, None
        if server is not None:
            self._parent.worker_hub.leave_local()
            self._retiring = asyncio.get_running_loop().create_task(server.stop(is_replaced=True))
        return {"pid": os.getpid(), "workers": self._supervisor.pids}

    async def _reload(self) -> dict[str, Any]:
        self.reload()
        return {"pid": os.getpid()}
