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
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from crowd import cpu_s
from websockets.asyncio.client import ClientConnection, connect

from kit.redis import RedisServer, free_port
from kit.serve import SMARTLINK
from kit.waiting import eventually
from portal import Client, add_users, migrated, service, until_up

EVERY_S = 30.0
PAUSE_S = 1.0
"""Between the calls of one person."""
LATE_S = 20.0
"""How long after the last post arrivals are waited for."""


class Chat:
    """What was said, when, and what everybody has heard of it."""

    def __init__(self) -> None:
        self.said: dict[str, float] = {}
        self.heard: dict[str, int] = {}
        self.waits_ms: list[float] = []
        self.refused: list[int] = []
        self.twice = 0

    def hear(self, text: str, already: set[str]) -> None:
        if text in already:
            self.twice += 1
            return
        already.add(text)
        self.heard[text] = self.heard.get(text, 0) + 1
        self.waits_ms.append((time.perf_counter() - self.said[text]) * 1e3)


class Person:
    """One user: a socket that listens, and requests."""

    def __init__(self, number: int, token: str, app_port: int, realtime_port: int) -> None:
        self.number = number
        self._token = token
        self._app_port = app_port
        self._realtime_port = realtime_port
        self._socket: ClientConnection | None = None
        self._socket_id = ""

    async def arrive(self) -> None:
        """Connect and subscribe."""
        url = f"ws://127.0.0.1:{self._realtime_port}/app/app-key?protocol=7"
        self._socket = await connect(url, compression=None, open_timeout=60, ping_interval=None)
        hello = json.loads(await self._socket.recv())
        self._socket_id = json.loads(hello["data"])["socket_id"]
        api = await Client.to(self._app_port)
        for channel in ("chat", "presence-chat", f"private-user.{self.number}"):
            data: dict[str, str] = {"channel": channel}
            if channel != "chat":
                asked = {"socket_id": self._socket_id, "channel_name": channel}
                status, body = await api.request("POST", "/broadcasting/auth", self._token, asked)
                if status != 200:
                    raise RuntimeError(f"{channel}: {status} {body!r}")
                data |= json.loads(body)
            await self._socket.send(json.dumps({"event": "pusher:subscribe", "data": data}))
            # What comes meanwhile is of others who arrive.
            while json.loads(await asyncio.wait_for(self._socket.recv(), 60))["event"] != (
                "pusher_internal:subscription_succeeded"
            ):
                pass
        api.close()

    async def listen(self, chat: Chat) -> None:
        """Note each message heard, until cancelled."""
        assert self._socket is not None
        already: set[str] = set()
        async for frame in self._socket:
            if "MessageSent" in frame and isinstance(frame, str):
                data = json.loads(json.loads(frame)["data"])
                chat.hear(data["message"]["message"], already)
            elif '"pusher:ping"' in str(frame):
                await self._socket.send('{"event":"pusher:pong"}')

    async def talk(self, chat: Chat, first_s: float, ends_at: float) -> None:
        """Post every 30 s, from `first_s` on."""
        at = time.monotonic() + first_s
        turn = 0
        while at + 2 * PAUSE_S < ends_at:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            api = await Client.to(self._app_port)
            for typing in (True, True):
                self._note(chat, (await api.request("POST", "/api/chat/typing", self._token, {"typing": typing}))[0])
                await asyncio.sleep(PAUSE_S)
            text = f"message {turn} of {self.number}"
            chat.said[text] = time.perf_counter()
            body = {"message": text}
            status, _ = await api.request("POST", "/api/chat/messages", self._token, body, self._socket_id)
            self._note(chat, status)
            if status != 201:
                del chat.said[text]
            api.close()
            at += EVERY_S
            turn += 1

    async def leave(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    def _note(self, chat: Chat, status: int) -> None:
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
        "reverb_webhook_allowed_hosts": f'["127.0.0.1:{app_port}"]',
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
            await asyncio.gather(*(person.arrive() for person in crowd[start : start + 20]))
        print(f"all are there after {time.monotonic() - began:.1f} s")
        before = {name: cpu_s([pid]) for name, pid in pids.items()}
        listening = [asyncio.create_task(person.listen(chat)) for person in crowd]
        ends_at = time.monotonic() + seconds
        await asyncio.gather(
            *(person.talk(chat, EVERY_S * place / people, ends_at) for place, person in enumerate(crowd))
        )
        wanted = len(chat.said) * (people - 1)
        with contextlib.suppress(AssertionError):
            await eventually(lambda: sum(chat.heard.values()) >= wanted, within_s=LATE_S)
        used = {name: cpu_s([pid]) - before[name] for name, pid in pids.items()}
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        await asyncio.gather(*(person.leave() for person in crowd))
    _report(chat, wanted, used, seconds)


def _report(chat: Chat, wanted: int, used: dict[str, float], seconds: float) -> None:
    waits, arrived = sorted(chat.waits_ms), sum(chat.heard.values())
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
