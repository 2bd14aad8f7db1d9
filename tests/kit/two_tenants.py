"""A server with two tenants and a bystander of each, to check that attacks on one harm nobody else."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from structlog.testing import capture_logs

from kit.client import Client, connected
from kit.realtime import realtime_server
from kit.waiting import LIMIT_S
from smartlink.protocol.signing import sign_channel, sign_user, signed_query
from smartlink.server.apps.base import App
from smartlink.server.run.lifecycle import RealtimeServer

__all__ = ["ONE", "TWO", "Api", "Stage", "stage", "subscription"]

ONE = App(id="1001", key="app-key", secret="app-secret", client_events_per_s=1_000)
TWO = App(id="1002", key="other-key", secret="other-secret", client_events_per_s=1_000)
CHANNELS = ("chat", "private-room", "presence-room")


def subscription(app: App, socket_id: str, channel: str, channel_data: str | None = None) -> dict[str, Any]:
    """The data of a rightly signed `pusher:subscribe`."""
    data: dict[str, Any] = {
        "channel": channel,
        "auth": sign_channel(app.key, app.secret, socket_id, channel, channel_data),
    }
    return data if channel_data is None else data | {"channel_data": channel_data}


class Api:
    """The HTTP API over one connection that is kept; byte for byte as given."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """The answer's status, and its body as JSON (None when it has none)."""
        async with asyncio.timeout(LIMIT_S):
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            lines = [f"{method} {target} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
            lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
            answer = b"" if method == "HEAD" else await reader.readexactly(size)
            if "connection: close" in head:
                self.close()
        return int(head.split(" ", 2)[1]), json.loads(answer) if answer else None

    async def call(
        self, app: App, method: str, path: str, body: bytes = b"", params: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """A rightly signed call."""
        query = signed_query(app.key, app.secret, method, path, body, timestamp=int(time.time()), params=params)
        return await self.send(method, f"{path}?{query}", body)

    async def publish(self, app: App, channel: str, name: str = "e", data: str = "{}", **more: Any) -> tuple[int, Any]:
        body = json.dumps({"name": name, "channel": channel, "data": data} | more).encode()
        return await self.call(app, "POST", f"/apps/{app.id}/events", body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


@dataclass(slots=True)
class Stage:
    """`watching`: of each tenant, a client on `chat`, `private-room` and `presence-room`, which must hear nothing."""

    server: RealtimeServer
    api: Api
    watching: dict[str, Client] = field(default_factory=dict)
    problems: list[Any] = field(default_factory=list)
    _rounds: int = 0

    @asynccontextmanager
    async def client(self, app: App = ONE, *channels: str) -> AsyncIterator[Client]:
        """A client of `app` that is on `channels`."""
        async with connected(self.server.port, key=app.key) as client:
            for channel in channels:
                await self.join(client, app, channel)
            yield client

    async def join(self, client: Client, app: App, channel: str, user_id: str = "7") -> None:
        member = json.dumps({"user_id": user_id}) if channel.startswith("presence-") else None
        is_public = not channel.startswith(("private-", "presence-"))
        data = {"channel": channel} if is_public else subscription(app, client.socket_id, channel, member)
        client.send("pusher:subscribe", data)
        await client.expect("pusher_internal:subscription_succeeded")

    async def sign_in(self, client: Client, app: App, user_id: str) -> None:
        user_data = json.dumps({"id": user_id})
        auth = sign_user(app.key, app.secret, client.socket_id, user_data)
        client.send("pusher:signin", {"auth": auth, "user_data": user_data})
        await client.expect("pusher:signin_success")

    async def nobody_was_harmed(self) -> None:
        """The bystanders heard nothing, still hear what is theirs, and the log is clean."""
        self._rounds += 1
        for app in (ONE, TWO):
            name = f"still-{app.id}-{self._rounds}"
            body = json.dumps({"name": name, "channels": list(CHANNELS), "data": "{}"}).encode()
            assert await self.api.call(app, "POST", f"/apps/{app.id}/events", body) == (200, {})
            messages = [await self.watching[app.id].receive() for _ in CHANNELS]
            assert [message["event"] for message in messages] == [name] * len(CHANNELS)
            assert {message["channel"] for message in messages} == set(CHANNELS)
        assert self.server.metrics.internal_errors == 0
        assert self.problems == []


class _Problems(logging.Handler):
    def __init__(self, problems: list[Any]) -> None:
        super().__init__(logging.WARNING)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        self._problems.append(record.getMessage())


@asynccontextmanager
async def stage(**settings: Any) -> AsyncIterator[Stage]:
    """Two tenants on one server. Warnings, errors and exceptions of any logger end up in `problems`."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        logs = stack.enter_context(capture_logs())
        server = await stack.enter_async_context(realtime_server(ONE, TWO, **settings))
        it = Stage(server, Api(server.port))
        stack.callback(it.api.close)
        handler = _Problems(it.problems)
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
        loop.set_exception_handler(lambda _loop, context: it.problems.append(context))
        stack.callback(loop.set_exception_handler, None)
        for app in (ONE, TWO):
            client = await stack.enter_async_context(connected(server.port, key=app.key))
            for channel in CHANNELS:
                await it.join(client, app, channel, "bystander")
            it.watching[app.id] = client
        yield it
        assert it.problems == []
        assert [entry for entry in logs if entry["log_level"] not in ("info", "debug")] == []
        assert server.metrics.internal_errors == 0
