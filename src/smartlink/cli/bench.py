"""`smartlink bench`: a short self-test of this installation, with clients of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from smartlink.cli.apps import as_served, read_apps
from smartlink.cli.failures import fail, server_errors, settings_errors
from smartlink.cli.wording import counted

if TYPE_CHECKING:
    import httpx2

    from smartlink.broadcasting import BroadcastSettings
    from smartlink.cli.doctor.socket import Socket
    from smartlink.server.apps.base import App

__all__ = ["register"]

OPEN_AT_ONCE = 32
PROBES = 40
PROBES_PER_S = 20.0
BURST_S = 3.0
WAIT_S = 20.0
BUSY = 0.85
"""Share of a core from which this command counts as busy."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured; times in milliseconds."""

    connections: int
    connects_per_s: float
    p50_ms: float
    p99_ms: float
    deliveries_per_s: float
    limit: str


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    connections: Annotated[int, typer.Option(min=1, max=2_000, help="Clients to connect.")] = 100,
    app_id: Annotated[str | None, typer.Option("--app", help="Id of the application to use.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure this installation for about ten seconds: connects and deliveries a second, and latency.

    Connects to REVERB_HOST:REVERB_PORT, uses a channel of its own, and counts against the application's limits. The
    clients share one core, so a large server is faster than it can measure: it says when that is so.
    """
    from smartlink.broadcasting import BroadcastSettings
    from smartlink.server.settings.config import ServerSettings

    with settings_errors(), server_errors():
        apps = asyncio.run(read_apps(ServerSettings()))
        settings = as_served(BroadcastSettings(), apps, app_id)
    if settings is None:
        fail(f"No application{f' {app_id}' if app_id else ''} is served. See: smartlink apps list", 2)
    app = next((each for each in apps if each.id == settings.reverb_app_id), None)
    try:
        result = asyncio.run(_Bench(settings, app, connections).run())
    except _Stopped as stopped:
        fail(str(stopped))
    if as_json:
        _say(json.dumps(asdict(result)))
        return
    _say(f"{counted(result.connections, 'connection')} opened, {result.connects_per_s:,.0f} a second")
    _say(f"{result.deliveries_per_s:,.0f} deliveries a second")
    _say(f"Publish to client: {result.p50_ms:.1f} ms in half the cases, {result.p99_ms:.1f} ms in 99 of 100")
    _say(f"Limited by {result.limit}")


class _Stopped(Exception):
    """The test cannot go on; the message says why."""


class _Bench:
    def __init__(self, settings: BroadcastSettings, app: App | None, connections: int) -> None:
        self._settings = settings
        self._app = app
        self._count = connections
        self._channel = f"bench-{secrets.token_hex(8)}"
        self._latencies: list[float] = []
        self._received = 0
        self._limited = ""
        self._progress = asyncio.Event()

    async def run(self) -> Result:
        import httpx2

        async with AsyncExitStack() as stack:
            sockets, connects_per_s = await self._connect(stack)
            readers = [asyncio.create_task(self._read(socket)) for socket in sockets]
            for reader in readers:
                stack.callback(reader.cancel)
            http = await stack.enter_async_context(httpx2.AsyncClient(timeout=WAIT_S, trust_env=False))
            await self._probe(http, len(sockets))
            latencies = sorted(self._latencies)
            began, cpu = time.monotonic(), time.process_time()
            deliveries_per_s = await self._burst(http, len(sockets))
            busy = (time.process_time() - cpu) / (time.monotonic() - began)
        if len(latencies) < 2:
            raise _Stopped("No event arrived. Examine the installation: smartlink doctor")
        cuts = statistics.quantiles(latencies, n=100)
        p50_ms, p99_ms = (round(cuts[index] * 1_000, 2) for index in (49, 98))
        limit = self._limit(busy)
        return Result(len(sockets), round(connects_per_s, 1), p50_ms, p99_ms, round(deliveries_per_s, 1), limit)

    def _limit(self, busy: float) -> str:
        if self._limited:
            return self._limited
        if busy >= BUSY:
            return f"this command, whose clients use {busy:.0%} of a core; the server may be faster"
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if load > cores:
            return f"this machine, which has more to do than its {cores} cores can (load {load:.0f})"
        return "the server, or the network between it and this command"

    async def _connect(self, stack: AsyncExitStack) -> tuple[list[Socket], float]:
        from smartlink.cli.doctor.socket import NoUpgrade, Socket

        own = self._settings
        path = f"/app/{quote(own.reverb_app_key, safe='')}?protocol=7&client=smartlink-bench&version=1"
        turns = asyncio.Semaphore(OPEN_AT_ONCE)

        async def connect() -> Socket:
            async with turns:
                socket = Socket(
                    own.reverb_host.strip("[]"), own.reverb_port, path, is_tls=own.reverb_scheme == "https", origin=None
                )
                await stack.enter_async_context(socket)
                await _expect(socket, "pusher:connection_established")
                return socket

        began = time.monotonic()
        try:
            async with asyncio.timeout(WAIT_S):
                results = await asyncio.gather(*(connect() for _ in range(self._count)), return_exceptions=True)
        except TimeoutError:
            raise _Stopped(f"{self._count} connections did not open within {WAIT_S:.0f} s") from None
        seconds = time.monotonic() - began
        sockets = [each for each in results if not isinstance(each, BaseException)]
        faults = [each for each in results if isinstance(each, BaseException)]
        if faults and not isinstance(faults[0], (_Stopped, OSError, EOFError, NoUpgrade)):
            raise faults[0]
        if not sockets:
            raise _Stopped(f"No connection opened: {faults[0]}. Examine the installation: smartlink doctor")
        if faults:
            refused = counted(len(faults), "connection")
            self._limited = f"the application or the machine: {refused} refused ({faults[0]})"
        for socket in sockets:
            await socket.send({"event": "pusher:subscribe", "data": {"channel": self._channel}})
            await _expect(socket, "pusher_internal:subscription_succeeded")
        return sockets, len(sockets) / seconds

    async def _read(self, socket: Socket) -> None:
        try:
            while True:
                message = await socket.receive()
                self._progress.set()
                if message.get("event") == "probe":
                    self._latencies.append(time.monotonic() - float(message["data"]))
                elif message.get("event") == "burst":
                    self._received += 1
        except (EOFError, OSError, asyncio.IncompleteReadError):
            self._progress.set()
            self._limited = self._limited or "the server, which closed connections meanwhile: see its log"

    async def _probe(self, http: httpx2.AsyncClient, sockets: int) -> None:
        """Publish at a calm pace, to measure latency."""
        for _ in range(PROBES):
            await self._publish(http, [{"name": "probe", "channel": self._channel, "data": str(time.monotonic())}])
            await asyncio.sleep(1 / PROBES_PER_S)
            if self._limited:
                return
        await self._until(lambda: len(self._latencies) >= PROBES * sockets)

    async def _burst(self, http: httpx2.AsyncClient, sockets: int) -> float:
        """Publish as fast as the server answers. Returns deliveries per second."""
        size = 10 if self._app is None else self._app.max_batch
        batch = [{"name": "burst", "channel": self._channel, "data": "x" * 100}] * size
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < BURST_S and not self._limited:
            # No further ahead than what clients can read: it measures deliveries, not buffers.
            if sent * sockets - self._received > 50 * size * sockets:
                await asyncio.sleep(0.001)
                continue
            await self._publish(http, batch)
            sent += size
        await self._until(lambda: self._received >= sent * sockets)
        return self._received / (time.monotonic() - began)

    async def _until(self, is_so: Any) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while not is_so() and not self._limited:
                    self._progress.clear()
                    await self._progress.wait()

    async def _publish(self, http: httpx2.AsyncClient, batch: list[dict[str, str]]) -> None:
        from smartlink.protocol.addresses import netloc
        from smartlink.protocol.signing import signed_query

        own = self._settings
        path = f"/apps/{quote(own.reverb_app_id, safe='')}/batch_events"
        body = json.dumps({"batch": batch}).encode()
        secret = own.reverb_app_secret.get_secret_value()
        query = signed_query(own.reverb_app_key, secret, "POST", path, body, timestamp=int(time.time()))
        base = f"{own.reverb_scheme}://{netloc(own.reverb_host, own.reverb_port)}"
        answer = await http.post(f"{base}{path}?{query}", content=body, headers={"Content-Type": "application/json"})
        if answer.status_code == 429:
            self._limited = "the application's rate of publishing (REVERB_APP_PUBLISHES_PER_SECOND)"
        elif answer.status_code != 200:
            raise _Stopped(f"Publishing failed ({answer.status_code}): {answer.text[:120]}")


async def _expect(socket: Socket, event: str) -> None:
    while True:
        message = await socket.receive()
        if message.get("event") == event:
            return
        if message.get("event") == "pusher:error":
            data = message.get("data")
            raise _Stopped(f"{data.get('code')} {data.get('message')}" if isinstance(data, dict) else "refused")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line
