"""People who chat: each posts every 30 s, with two typing calls before, and listens on chat, presence and their own.

    python benchmarks/crowd_of_people.py [people] [seconds]

`smartlink app start`, `smartlink reverb start` and `smartlink worker start` run as processes of their own on a real
PostgreSQL. Every message must arrive at everybody but its sender; how long it takes is measured from before the
request to its arrival, at everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from crowd import HANDSHAKE, cpu_s, frame

from kit.ports import free_port
from kit.redis import RedisServer
from kit.serve import SMARTLINK
from kit.waiting import eventually
from portal import Client, add_users, migrated, service, until_up

EVERY_S = 30.0
PAUSE_S = 1.0
"""Between the calls of one person."""
_MARK = re.compile(rb"<\d+-\d+>")
_MARK_BYTES = 16
_SOCKET_ID = re.compile(rb"socket_id\W+(\d+\.\d+)")
LATE_S = 20.0
"""How long after the last post arrivals are waited for."""


class Chat:
    """What was said, when, and what everybody has heard of it."""

    def __init__(self) -> None:
        self.said: dict[bytes, float] = {}
        self.arrivals = 0
        self.waits_ms: list[float] = []
        self.refused: list[int] = []
        self.twice = 0
        self.gone = 0


class PubSubConnection(asyncio.Protocol):
    """A socket that reads what came for its marks only, so that 25,000 frames a second are no work for the crowd."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._heard: set[bytes] = set()
        self._rest = b""
        self.early: bytearray | None = bytearray()
        """All that came until everything was subscribed."""
        self.came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if self.early is not None:
            self.early += data
            self.came.set()
        if b"pusher:ping" in data:
            self.transport.write(frame(b'{"event":"pusher:pong"}'))
        now, data = time.perf_counter(), self._rest + data
        for mark in _MARK.findall(data):
            if mark in self._heard:
                self._chat.twice += 1
                continue
            self._heard.add(mark)
            self._chat.arrivals += 1
            self._chat.waits_ms.append((now - self._chat.said[mark]) * 1e3)
        begun = data.rfind(b"<", -_MARK_BYTES)
        self._rest = data[begun:] if begun >= 0 and b">" not in data[begun:] else b""

    def connection_lost(self, _error: Exception | None) -> None:
        self._chat.gone += 1

    async def until(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        """What of the early bytes fits, once it has come."""
        async with asyncio.timeout(60):
            while True:
                assert self.early is not None
                if found := pattern.search(self.early):
                    return found
                self.came.clear()
                await self.came.wait()


class Person:
    """One user: a socket that listens, and requests."""

    def __init__(self, number: int, token: str, app_port: int, realtime_port: int) -> None:
        self.number = number
        self._token = token
        self._app_port = app_port
        self._realtime_port = realtime_port
        self._socket_id = ""

    async def arrive(self, chat: Chat) -> None:
        """Connect and subscribe."""
        loop = asyncio.get_running_loop()
        _, self._ear = await loop.create_connection(lambda: PubSubConnection(chat), "127.0.0.1", self._realtime_port)
        self._ear.transport.write(HANDSHAKE)
        self._socket_id = (await self._ear.until(_SOCKET_ID))[1].decode()
        api = await Client.to(self._app_port)
        for count, channel in enumerate(("chat", "presence-chat", f"private-user.{self.number}"), 1):
            data: dict[str, str] = {"channel": channel}
            if channel != "chat":
                asked = {"socket_id": self._socket_id, "channel_name": channel}
                status, body = await api.request("POST", "/broadcasting/auth", self._token, asked)
                if status != 200:
                    raise RuntimeError(f"{channel}: {status} {body!r}")
                data |= json.loads(body)
            message = {"event": "pusher:subscribe", "data": data}
            self._ear.transport.write(frame(json.dumps(message).encode()))
            await self._ear.until(re.compile(b"(?:subscription_succeeded.*?){%d}" % count, re.DOTALL))
        api.close()

    def listen(self) -> None:
        """From now on only marks count."""
        self._ear.early = None

    async def talk(self, chat: Chat, first_s: float, ends_at: float) -> None:
        """Post every 30 s, from `first_s` on."""
        at = time.monotonic() + first_s
        turn = 0
        while at + 2 * PAUSE_S < ends_at:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            for _ in range(2):
                await self._ask(chat, "/api/chat/typing", {"typing": True})
                await asyncio.sleep(PAUSE_S)
            mark = f"<{turn}-{self.number}>"
            chat.said[mark.encode()] = time.perf_counter()
            await self._ask(chat, "/api/chat/messages", {"message": mark})
            at += EVERY_S
            turn += 1

    async def _ask(self, chat: Chat, path: str, body: object) -> None:
        # A connection of its own: the server closes those that rest.
        api = await Client.to(self._app_port)
        status, _ = await api.request("POST", path, self._token, body, self._socket_id)
        api.close()
        if status not in (200, 201):
            chat.refused.append(status)


async def main(people: int, seconds: float) -> None:
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}; {people} people")
    chat, redis = Chat(), RedisServer()
    redis.start()
    try:
        with migrated() as url:
            await _evening(chat, url, redis.url, people, seconds)
    finally:
        redis.close()


async def _evening(chat: Chat, url: str, redis_url: str, people: int, seconds: float) -> None:
    tokens = add_users(url, people)
    app_port, realtime_port = free_port(), free_port()
    settings = {
        "app_port": app_port,
        "database_url": url,
        "redis_url": redis_url,
        "reverb_server_port": realtime_port,
        "reverb_port": realtime_port,
        "reverb_webhook_url": f"http://127.0.0.1:{app_port}/webhooks/realtime",
        "reverb_webhook_allow_http": "true",
        "reverb_webhook_allowed_hosts": f"127.0.0.1:{app_port}",
    }
    async with AsyncExitStack() as stack:
        commands = {"app": ("app", "start"), "reverb": ("reverb", "start"), "worker": ("worker", "start")}
        pids = {
            name: await stack.enter_async_context(service(SMARTLINK, *command, **settings))
            for name, command in commands.items()
        }
        await until_up(app_port)
        await until_up(realtime_port)
        crowd = [Person(number, token, app_port, realtime_port) for number, token in enumerate(tokens, 1)]
        began = time.monotonic()
        for start in range(0, people, 20):
            await asyncio.gather(*(person.arrive(chat) for person in crowd[start : start + 20]))
        print(f"all are there after {time.monotonic() - began:.1f} s")
        before = {name: cpu_s(family(pid)) for name, pid in pids.items()}
        for person in crowd:
            person.listen()
        ends_at = time.monotonic() + seconds
        await asyncio.gather(
            *(person.talk(chat, EVERY_S * place / people, ends_at) for place, person in enumerate(crowd))
        )
        wanted = len(chat.said) * (people - 1)
        with contextlib.suppress(AssertionError):
            await eventually(lambda: chat.arrivals >= wanted, within_s=LATE_S)
        used = {name: cpu_s(family(pid)) - before[name] for name, pid in pids.items()}
        gone, chat.gone = chat.gone, 0
        if gone:
            print(f"{gone} sockets were lost")
    _report(chat, wanted, used, seconds)


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def _report(chat: Chat, wanted: int, used: dict[str, float], seconds: float) -> None:
    waits, arrived = sorted(chat.waits_ms), chat.arrivals
    print(
        f"{len(chat.said)} messages, {arrived} of {wanted} arrivals, {wanted - arrived} lost, {chat.twice} twice, "
        f"{len(chat.refused)} requests refused {sorted(set(chat.refused))}"
    )
    if waits:
        p50, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
        print(f"arrival p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {waits[-1]:.1f} ms")
    print("CPU: " + ", ".join(f"{name} {cpu / seconds * 100:.0f}%" for name, cpu in used.items()))


def _numbers(arguments: Sequence[str]) -> tuple[int, float]:
    return int(arguments[0]) if arguments else 500, float(arguments[1]) if len(arguments) > 1 else 90.0


if __name__ == "__main__":
    asyncio.run(main(*_numbers(sys.argv[1:])))
