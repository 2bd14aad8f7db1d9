"""The operators' port: `/metrics`, `/healthz`, `/readyz` and `/usage`, separate from client traffic."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import structlog

from smartlink.server.observe.exposition import CONTENT_TYPE, render
from smartlink.server.runtime.metrics import Samples

__all__ = ["ObserveEndpoint"]

MAX_HEAD_BYTES = 8_192
MAX_AT_ONCE = 32
TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)


class ObserveEndpoint:
    """A small HTTP server: one request per connection.

    When `MAX_AT_ONCE` connections are open, a new one evicts the one that has been silent longest.
    """

    def __init__(self, host: str, port: int, server_port: Callable[[], int], samples: Callable[[], Samples]) -> None:
        """`samples` returns those of all workers; `server_port` is the port for clients."""
        self._host = host
        self.port = port
        self._server_port = server_port
        self._samples = samples
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._silent: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        """Connections that have not sent a request yet, oldest first."""

    async def start(self) -> None:
        """Listen. Raises OSError if the port is unavailable."""
        self._server = await asyncio.start_server(self._accept, self._host, self.port, limit=MAX_HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("metrics listening", host=self._host, port=self.port)

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(tuple(self._open), timeout=TIMEOUT_S)
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_AT_ONCE:
            if not self._silent:
                writer.transport.abort()
                return
            self._silent.pop(next(iter(self._silent))).cancel()
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._open.add(task)
        self._silent[writer] = task
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                self._silent.pop(writer, None)
                writer.write(self._answer(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, TimeoutError):
            pass  # a malformed request or an early disconnect gets no response
        finally:
            self._silent.pop(writer, None)
            with contextlib.suppress(RuntimeError):  # the loop may be closing
                writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        parts = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _encode(400, "text/plain", "Only HTTP/1.x is supported\n")
        method, path = parts[0], parts[1].partition("?")[0]
        if method not in ("GET", "HEAD"):
            status, kind, body = 405, "text/plain", "Use GET\n"
        else:
            status, kind, body = self._find(path)
        return _encode(status, kind, body, with_body=method != "HEAD")

    def _find(self, path: str) -> tuple[int, str, str]:
        if path == "/healthz":
            return 200, "text/plain", "OK\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE, render(self._samples(), self._server_port())
        if path == "/readyz":
            return _readiness(self._samples())
        if path == "/usage":
            return 200, "application/json", json.dumps(self._usage())
        return 404, "text/plain", "Not found; try /metrics, /healthz, /readyz or /usage\n"

    def _usage(self) -> dict[str, dict[str, float]]:
        """Memory used by all workers out of the machine's total, in Soketi's format."""
        used = sum(v for name, v in self._samples().items() if name.startswith("smartlink_resident_memory_bytes"))
        total = int(Path("/proc/meminfo").read_text().split()[1]) * 1_024
        return {"memory": {"free": total - used, "used": used, "total": total, "percent": 100 * used / total}}


_UNREADY = {
    "smartlink_workers_apart": "Other nodes are unreachable",
    "smartlink_redis_full": "Redis is full: it accepts no writes until memory is freed",
    "smartlink_tasks_died": "A background task crashed: see the log, then restart",
}


def _readiness(samples: Samples) -> tuple[int, str, str]:
    if not samples.get("smartlink_workers_ready"):
        return 503, "text/plain", "Not accepting connections\n"
    faults = [f"{words}\n" for name, words in _UNREADY.items() if samples.get(name)]
    evicts = "Redis may evict keys: set maxmemory-policy noeviction\n"
    lines = [*(faults or ["OK\n"]), *([evicts] if samples.get("smartlink_redis_evicts") else [])]
    return (503 if faults else 200), "text/plain", "".join(lines)


_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


def _encode(status: int, kind: str, body: str, *, with_body: bool = True) -> bytes:
    content = body.encode()
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (content if with_body else b"")
