"""Our own Redis servers for the tests: on free ports, without persistence, removed afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from redis import Redis, RedisError
from redis.crc import key_slot
from redis.exceptions import MovedError

from kit import processes
from kit.ports import free_port, free_port_with_bus
from kit.tcp import Listener
from kit.waiting import LIMIT_S

__all__ = [
    "Proxy",
    "RedisServer",
    "cluster",
    "fresh_prefix",
    "half_moved",
    "proxy",
    "redis_server",
    "sentinel",
    "shared_redis",
]


def fresh_prefix() -> str:
    """A prefix of names in Redis that no other test uses."""
    return f"t{uuid4().hex[:12]}"


class RedisServer:
    """One process; it can be stopped, started again empty, frozen, and killed."""

    def __init__(
        self,
        *arguments: str,
        port: int | None = None,
        mode: str | None = None,
        config: str = "",
        password: str | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self._arguments = arguments
        self._mode = mode
        self._config = config
        self._password = password
        self._directory = Path(tempfile.mkdtemp(prefix="smartlink-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        processes.needs_server("Redis")
        binary = shutil.which("redis-server")
        if binary is None:
            raise FileNotFoundError("redis-server is missing; `make setup-dev` installs Redis")
        command = [binary]
        if self._config or self._mode:
            file = self._directory / "redis.conf"
            file.write_text(self._config)
            command.append(str(file))
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory)]
        if self._mode == "sentinel":
            command.append("--sentinel")
        else:
            command += ["--save", "", "--appendonly", "no"]
        self._process = processes.popen(
            [*command, *self._arguments], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        limit = time.monotonic() + LIMIT_S
        while True:
            try:
                self.call("PING")
            except RedisError:
                if time.monotonic() > limit or self._process.poll() is not None:
                    raise
                time.sleep(0.02)
            else:
                return

    def call(self, *command: str | int) -> object:
        """One command, on a connection of its own."""
        with Redis(port=self.port, socket_timeout=5, password=self._password) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """As `kill -9`; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(LIMIT_S)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        with contextlib.suppress(AssertionError, ProcessLookupError):
            self.thaw()
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


@contextmanager
def redis_server(*arguments: str, port: int | None = None, password: str | None = None) -> Iterator[RedisServer]:
    """A server of the test's own, that it may harm."""
    server = RedisServer(*arguments, port=port, password=password)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def sentinel(master_port: int, service: str = "mymaster") -> Iterator[RedisServer]:
    """A Sentinel that looks after one master and calls it down after half a second."""
    config = (
        f"sentinel monitor {service} 127.0.0.1 {master_port} 1\n"
        f"sentinel down-after-milliseconds {service} 500\n"
        f"sentinel failover-timeout {service} 3000\n"
    )
    server = RedisServer(mode="sentinel", config=config)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def cluster(number: int) -> Iterator[list[RedisServer]]:
    """A Cluster of masters on loopback."""
    servers: list[RedisServer] = []
    try:
        while len(servers) < number:
            server = RedisServer(
                "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", port=free_port_with_bus()
            )
            servers.append(server)
            server.start()
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        processes.run(
            [shutil.which("redis-cli") or "redis-cli", "--cluster", "create", *addresses, "--cluster-yes"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        limit = time.monotonic() + LIMIT_S
        while any("cluster_state:ok" not in str(server.call("CLUSTER", "INFO")) for server in servers):
            if time.monotonic() > limit:
                raise TimeoutError("the Redis Cluster did not form")
            time.sleep(0.05)
        yield servers
    finally:
        for server in servers:
            server.close()


@contextmanager
def half_moved(masters: list[RedisServer], name: str, *moved: str) -> Iterator[None]:
    """The slot of `name` on its way to another master, which has the keys `moved` already; brought to its end after."""
    slot = key_slot(name.encode())
    source = next(server for server in masters if _owns(server, name))
    target = next(server for server in masters if server is not source)
    source_id, target_id = (_text(server.call("CLUSTER", "MYID")) for server in (source, target))
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)

    def move(*keys: str) -> None:
        if keys:
            source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)

    move(*moved)
    try:
        yield
    finally:
        while left := source.call("CLUSTER", "GETKEYSINSLOT", slot, 100):
            move(*map(_text, left))  # type: ignore[call-overload]
        for server in (target, source, *masters):
            server.call("CLUSTER", "SETSLOT", slot, "NODE", target_id)


def _owns(server: RedisServer, name: str) -> bool:
    try:
        server.call("EXISTS", name)
    except MovedError:
        return False
    return True


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """A server that all tests share, each under its own prefix; nobody harms it."""
    with redis_server() as server:
        yield server


class Proxy:
    """Forwards TCP to a port; can swallow every byte with all connections left open."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._flows = asyncio.Event()
        self._flows.set()
        self._listener = Listener(self._serve)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def swallow(self) -> None:
        """Forward nothing any more; new connections are taken, and hear nothing."""
        self._flows.clear()

    async def heal(self) -> None:
        """Forward again, for connections made from now on; the others end, their bytes are lost."""
        await self.cut()
        self._flows.set()

    async def cut(self) -> None:
        """End every connection."""
        await self._listener.cut()

    async def start(self) -> None:
        await self._listener.start()
        self.port = self._listener.port

    async def stop(self) -> None:
        await self._listener.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        pumps = [asyncio.create_task(self._pump(*both)) for both in ((reader, back), (there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for end in (writer, back):
                end.transport.abort()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            if not self._flows.is_set():
                continue
            sink.write(data)
            await sink.drain()


@asynccontextmanager
async def proxy(target_port: int) -> AsyncIterator[Proxy]:
    between = Proxy(target_port)
    await between.start()
    try:
        yield between
    finally:
        await between.stop()
