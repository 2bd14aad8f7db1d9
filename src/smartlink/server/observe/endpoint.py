"""The operators' port: `/metrics`, `/healthz`, `/readyz`, `/usage`, and the dashboard with its API.

The same is served on a Unix socket beside the control socket, which only the server's user may open.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import structlog

from smartlink.prometheus import CONTENT_TYPE, Samples
from smartlink.server.observe.access import Request
from smartlink.server.observe.api import OperatorApi, Response
from smartlink.server.observe.exposition import render
from smartlink.server.observe.pages import Pages

__all__ = ["ObserveEndpoint"]

MAX_HEAD_BYTES = 8_192
MAX_BODY_BYTES = 65_536
MAX_AT_ONCE = 32
"""Requests at once; open consoles have a limit of their own (`consoles.MAX_CONSOLES`)."""
TIMEOUT_S = 5.0
ANSWER_S = 20.0
STALLED_S = 15.0
"""How long a console may read nothing before it is cut."""

log = structlog.get_logger(__name__)


class ObserveEndpoint:
    """A small HTTP server: one request per connection.

    When `MAX_AT_ONCE` connections are open, a new one evicts the one that has been silent longest.
    """

    def __init__(
        self,
        host: str | None,
        port: int,
        server_port: Callable[[], int],
        samples: Callable[[], Samples],
        api: OperatorApi | None = None,
    ) -> None:
        """`samples` returns those of all workers; `server_port` is the port for clients. Without a `host` no port is
        opened (`listen_on`).
        """
        self._host = host
        self.port = port
        self._server_port = server_port
        self._samples = samples
        self._api = api
        self._pages = Pages()
        self._servers: list[asyncio.Server] = []
        self._unix: list[Path] = []
        self._open: set[asyncio.Task[None]] = set()
        self._streaming: set[asyncio.Task[None]] = set()
        self._silent: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        """Connections that have not sent a request yet, oldest first."""

    async def start(self) -> None:
        """Listen. Raises OSError if the port is unavailable."""
        if self._host is not None:
            server = await asyncio.start_server(self._accept, self._host, self.port, limit=MAX_HEAD_BYTES)
            self._servers.append(server)
            self.port = server.sockets[0].getsockname()[1]
            log.info("metrics listening", host=self._host, port=self.port)

    async def listen_on(self, unix: socket.socket) -> None:
        """Listen on a Unix socket too; its file is removed at the end."""
        self._unix.append(Path(unix.getsockname()))
        self._servers.append(await asyncio.start_unix_server(self._accept, sock=unix, limit=MAX_HEAD_BYTES))

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        tasks = self._open | self._streaming
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=TIMEOUT_S)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        for path in self._unix:
            path.unlink(missing_ok=True)

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
                request = await _read(head, reader, writer)
            if isinstance(request, Response):
                response, is_head = request, False
            else:
                is_head = request.method == "HEAD"
                async with asyncio.timeout(ANSWER_S):
                    response = await self._answer(request)
            if response.stream is not None:
                await self._stream(response, reader, writer)
                return
            writer.write(_encode(response, with_body=not is_head))
            async with asyncio.timeout(TIMEOUT_S):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, TimeoutError):
            pass  # a malformed request or an early disconnect gets no response
        finally:
            self._silent.pop(writer, None)
            with contextlib.suppress(RuntimeError):  # the loop may be closing
                writer.transport.abort()

    async def _stream(self, response: Response, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Write the parts of a response until the client leaves or stops reading."""
        task = asyncio.current_task()
        assert task is not None and response.stream is not None  # noqa: S101, PT018 — called within a task
        self._streaming.add(task)
        task.add_done_callback(self._streaming.discard)
        self._open.discard(task)
        # A client that leaves ends the stream at once: there is nothing else to read.
        leaving = asyncio.get_running_loop().create_task(reader.read(1))
        leaving.add_done_callback(lambda _: task.cancel())
        try:
            writer.write(_encode(response))
            async with contextlib.aclosing(response.stream) as parts:  # type: ignore[type-var] # a generator
                async for part in parts:
                    writer.write(part)
                    async with asyncio.timeout(STALLED_S):
                        await writer.drain()
        finally:
            leaving.cancel()

    async def _answer(self, request: Request) -> Response:
        path = request.path
        if self._api is not None and path.startswith("/api/"):
            return await self._api.answer(request)
        if request.method not in ("GET", "HEAD"):
            return _plain(405, "Use GET\n")
        if path == "/healthz":
            return _plain(200, "OK\n")
        if path == "/metrics":
            return _plain(200, render(self._samples(), self._server_port()), CONTENT_TYPE)
        if path == "/readyz":
            return _readiness(self._samples())
        if path == "/usage":
            return _plain(200, json.dumps(self._usage()), "application/json")
        if self._api is not None and (page := self._pages.find(path)) is not None:
            return page
        return _plain(404, "Not found; try /metrics, /healthz, /readyz or /usage\n")

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


def _readiness(samples: Samples) -> Response:
    if not samples.get("smartlink_workers_ready"):
        return _plain(503, "Not accepting connections\n")
    faults = [f"{words}\n" for name, words in _UNREADY.items() if samples.get(name)]
    evicts = "Redis may evict keys: set maxmemory-policy noeviction\n"
    lines = [*(faults or ["OK\n"]), *([evicts] if samples.get("smartlink_redis_evicts") else [])]
    return _plain(503 if faults else 200, "".join(lines))


async def _read(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | Response:
    """Return the request, or the answer to one that cannot be read."""
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return _plain(400, "Only HTTP/1.x is supported\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
        return _plain(400, "Send Content-Length\n")
    if int(length[:9]) > MAX_BODY_BYTES:
        return _plain(413, f"The body is larger than {MAX_BODY_BYTES} bytes\n")
    body = await reader.readexactly(int(length))
    path, _, query = parts[1].partition("?")
    peer = writer.get_extra_info("peername")
    address = peer[0] if isinstance(peer, tuple) else ""
    return Request(parts[0], unquote(path), dict(parse_qsl(query, max_num_fields=20)), headers, body, address)


def _plain(status: int, text: str, kind: str = "text/plain") -> Response:
    return Response(text.encode(), status, {"Content-Type": kind})


def _encode(response: Response, *, with_body: bool = True) -> bytes:
    fields = {
        "Cache-Control": "no-store",
        "Connection": "close",
        "X-Content-Type-Options": "nosniff",
        **response.headers,
    }
    if response.stream is None:
        fields["Content-Length"] = str(len(response.body))
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head + response.body if with_body else head
