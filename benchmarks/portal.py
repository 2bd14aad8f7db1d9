"""What the portal's API costs: requests a second of its own CPU, and how long they take, on a real PostgreSQL.

    python benchmarks/portal.py [who] [post] [typing] [read] [sign] [sign50] [redis] [profile]

The API is `smartlink app start` in a process of its own; its CPU time is read from /proc. The load comes over kept
connections, a few requests at a time, in turns from many users so that no rate limit is met. `redis` does all of it
with a Redis as well; `profile` prints where the API process spends its time (and makes it slower).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psycopg
from crowd import cpu_s

from kit import processes
from kit.ports import free_port
from kit.postgres import cluster
from kit.redis import RedisServer
from kit.serve import SMARTLINK
from smartlink.portal import migrations
from smartlink.portal.shared.security import digest

USERS = 1_000
AT_ONCE = 8
REQUESTS = 1_200
ROUNDS = 3
PROFILE = str(Path(tempfile.gettempdir()) / "portal.prof")
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def add_users(url: str, count: int) -> list[str]:
    """`count` users, each with a token; the tokens."""
    now = dt.datetime.now(dt.UTC)
    tokens = [f"token-{number}" for number in range(1, count + 1)]
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO users (id, name, email, password, is_admin, created_at, updated_at) "
            "VALUES (%s, %s, %s, '', false, %s, %s)",
            [(number, f"User {number}", f"user{number}@example.com", now, now) for number in range(1, count + 1)],
        )
        cursor.executemany(
            "INSERT INTO personal_access_tokens "
            "(user_id, name, token, abilities, last_used_at, created_at, updated_at) "
            "VALUES (%s, 'bench', %s, '[\"*\"]', %s, %s, %s)",
            [(number, digest(token), now, now, now) for number, token in enumerate(tokens, 1)],
        )
        cursor.execute("SELECT setval(pg_get_serial_sequence('users', 'id'), %s)", (count,))
    return tokens


@asynccontextmanager
async def service(*arguments: str, **settings: object) -> AsyncIterator[int]:
    """`smartlink …` in a process of its own; its pid."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("REVERB_", "APP_", "DB_"))}
    environment |= {name.upper(): str(value) for name, value in settings.items()}
    with tempfile.TemporaryDirectory() as folder:
        process = await processes.spawn(
            sys.executable, *arguments, env=environment, cwd=folder, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            yield process.pid
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), 30)


async def until_up(port: int, timeout_s: float = 60) -> None:
    """Until somebody listens on `port`."""
    ends_at = time.monotonic() + timeout_s
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > ends_at:
                raise
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


class Client:
    """One kept connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def request(
        self, method: str, path: str, token: str, body: object = None, socket_id: str = "1.1"
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        content = b"" if body is None else json.dumps(body).encode()
        asked = (
            f"{method} {path} HTTP/1.1\r\nhost: portal\r\nauthorization: Bearer {token}\r\nx-socket-id: {socket_id}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        self._writer.write(asked.encode() + content)
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 30)
        found = _LENGTH.search(head)
        answer = await self._reader.readexactly(int(found[1]) if found else 0)
        return int(head[9:12]), answer

    def close(self) -> None:
        self._writer.close()


Ask = Callable[[Client, str, int], Awaitable[tuple[int, bytes]]]


async def measure(what: str, pid: int, port: int, tokens: Sequence[str], ask: Ask, requests: int = REQUESTS) -> None:
    """Requests a second of the clock and of the CPU of `pid`, and how long they take."""
    clients = [await Client.to(port) for _ in range(AT_ONCE)]
    rates, costs, waits = [], [], []
    for round_number in range(ROUNDS + 1):
        turns: Iterator[int] = iter(range(requests))
        waits.clear()

        async def one(client: Client, turns: Iterator[int] = turns, first: int = round_number * requests) -> None:
            for turn in turns:
                began = time.perf_counter()
                status, answer = await ask(client, tokens[(first + turn) % len(tokens)], turn)
                waits.append((time.perf_counter() - began) * 1e3)
                if status not in (200, 201):
                    raise RuntimeError(f"{what}: {status} {answer[:200]!r}")

        before, began = cpu_s([pid]), time.perf_counter()
        await asyncio.gather(*(one(client) for client in clients))
        if round_number:  # the first one warms up
            rates.append(requests / (time.perf_counter() - began))
            costs.append((cpu_s([pid]) - before) / requests)
    for client in clients:
        client.close()
    waits.sort()
    cost = statistics.median(costs)
    print(
        f"{what:<30} {1 / cost:7,.0f} requests per CPU second "
        f"({cost * 1e6:,.0f} µs each, least {min(costs) * 1e6:,.0f}); {statistics.median(rates):,.0f}/s "
        f"of the clock; p50 {waits[len(waits) // 2]:.1f} ms, p99 {waits[len(waits) * 99 // 100]:.1f} ms"
    )


async def post(client: Client, token: str, turn: int) -> tuple[int, bytes]:
    """A message to everybody."""
    return await client.request("POST", "/api/chat/messages", token, {"message": f"Message number {turn}"})


async def typing(client: Client, token: str, turn: int) -> tuple[int, bytes]:
    """That somebody types."""
    return await client.request("POST", "/api/chat/typing", token, {"typing": turn % 2 == 0})


async def read(client: Client, token: str, _turn: int) -> tuple[int, bytes]:
    """The newest page of general chat."""
    return await client.request("GET", "/api/chat/messages?limit=50", token)


async def who(client: Client, token: str, _turn: int) -> tuple[int, bytes]:
    """Who is signed in: what every request costs."""
    return await client.request("GET", "/api/user", token)


async def sign(client: Client, token: str, _turn: int) -> tuple[int, bytes]:
    """A signature for one's own channel."""
    body = {"socket_id": "1.1", "channel_name": f"private-user.{token.removeprefix('token-')}"}
    return await client.request("POST", "/broadcasting/auth", token, body)


async def sign_batch(client: Client, token: str, _turn: int) -> tuple[int, bytes]:
    """Signatures for fifty channels in one call."""
    own = int(token.removeprefix("token-"))
    names = [f"private-user.{own}", *(f"private-chat.{min(own, n)}.{max(own, n)}" for n in range(1, 51) if n != own)]
    body = {"socket_id": "1.1", "channels": names[:50]}
    return await client.request("POST", "/broadcasting/auth", token, body)


PARTS: dict[str, tuple[str, Ask]] = {
    "who": ("GET /api/user", who),
    "post": ("POST /api/chat/messages", post),
    "typing": ("POST /api/chat/typing", typing),
    "read": ("GET /api/chat/messages (50)", read),
    "sign": ("POST /broadcasting/auth", sign),
    "sign50": ("POST /broadcasting/auth (50)", sign_batch),
}


@contextmanager
def migrated() -> Iterator[str]:
    """The address of a PostgreSQL of our own with the portal's tables."""
    with cluster() as url:
        migrations.upgrade(url)
        yield url


async def api(url: str, parts: Sequence[str], redis_url: str | None, *, profiled: bool) -> None:
    """The parts wanted, against one API process."""
    with psycopg.connect(url) as connection:
        count = connection.execute("SELECT count(*) FROM users").fetchone()
    tokens = add_users(url, USERS) if count == (0,) else [f"token-{number}" for number in range(1, USERS + 1)]
    port = free_port()
    settings: dict[str, object] = {"app_port": port, "database_url": url, "broadcast_driver": "null"}
    if redis_url is not None:
        settings["redis_url"] = redis_url
    program = [SMARTLINK, "app", "start"]
    if profiled:
        program = ["-m", "cProfile", "-o", PROFILE, *program]
    async with service(*program, **settings) as pid:
        await until_up(port)
        for part in parts:
            name, ask = PARTS[part]
            await measure(name + (", Redis" if redis_url else ""), pid, port, tokens, ask)
    if profiled:
        import pstats

        pstats.Stats(PROFILE).sort_stats("tottime").print_stats(60)


async def main(wanted: Sequence[str]) -> None:
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    parts = [part for part in PARTS if part in wanted] or list(PARTS)
    with migrated() as url:
        await api(url, parts, None, profiled="profile" in wanted)
        if "redis" in wanted:
            redis = RedisServer()
            redis.start()
            try:
                await api(url, parts, redis.url, profiled=False)
            finally:
                redis.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
