"""Delivers events that an application publishes to Redis in the format of Laravel's redis broadcaster.

The Redis channel is the wire channel's name after a prefix; the message is `{"event", "data", "socket"}`. Every node
receives all of them and delivers them to its own subscribers, without publishing again. Redis' pub/sub stores nothing:
a node misses what is published while it is not connected, and cache channels do not keep these events.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog
from redis.asyncio.connection import Connection

from smartlink.background import Background, ended
from smartlink.backoff import Backoff
from smartlink.lost import closed_is_lost
from smartlink.protocol import encoding
from smartlink.protocol.names import is_reserved_event, is_valid_channel, is_valid_event_name, is_valid_socket_id
from smartlink.server.apps.base import App, AppManager
from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.cluster.redis.connect import LOST, find_topology, open_connection
from smartlink.server.core.node import Node
from smartlink.server.settings.config import ServerSettings
from smartlink.throttle import Throttle

__all__ = ["RedisIngest"]

PING_EVERY_S = 1.0
SILENCE_S = 3.0
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.05, 1.0

log = structlog.get_logger(__name__)


class _Event(msgspec.Struct):
    event: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    socket: str | None = None


_decoder = msgspec.json.Decoder(_Event)
_text_decoder = msgspec.json.Decoder(str)


class RedisIngest:
    """Subscribes to Redis for the application of the environment, and reconnects for ever."""

    def __init__(self, settings: ServerSettings, apps: AppManager, node: Node, background: Background) -> None:
        self._background = background
        self._address = settings.redis_address
        self._prefix = settings.broadcast_redis_prefix
        self._own = f"{settings.reverb_scaling_channel}:"
        """The nodes' own channels, which an empty prefix would match."""
        self._app_id = settings.reverb_app_id
        self._apps = apps
        self._node = node
        self._heard_at = 0.0
        self._throttle = Throttle()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._background.start("receiving the application's events from Redis", self._run())

    async def stop(self) -> None:
        await ended(self._task)

    async def _run(self) -> None:
        backoff = Backoff(FIRST_BACKOFF_S, LAST_BACKOFF_S)
        while True:
            self._heard_at = 0.0
            try:
                with closed_is_lost():
                    await self._listen()
            except (*LOST, ValueError) as error:
                self._warn("cannot read events from redis", f"{type(error).__name__}: {str(error)[:200]}")
            if self._heard_at:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    async def _listen(self) -> None:
        topology = await find_topology(self._address)
        connection = await open_connection(self._address, topology.endpoints[0])
        tasks = []
        try:
            await connection.send_command("PSUBSCRIBE", f"{_literal(self._prefix)}*")
            tasks = [asyncio.create_task(self._read(connection)), asyncio.create_task(self._ping(connection))]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await ended(*tasks)
            await connection.disconnect(nowait=True)

    async def _ping(self, connection: Connection) -> None:
        asked_at = time.monotonic()
        while True:
            await connection.send_command("PING")
            await asyncio.sleep(PING_EVERY_S)
            if time.monotonic() - max(self._heard_at, asked_at) > SILENCE_S:
                raise TimeoutError(f"no answer for {SILENCE_S:g} s")

    async def _read(self, connection: Connection) -> None:
        while True:
            message = await connection.read_response(disable_decoding=True)
            self._heard_at = time.monotonic()
            if isinstance(message, list) and len(message) == 4 and message[0] == b"pmessage":
                self._take(message[2], message[3])

    def _take(self, name: bytes, payload: bytes) -> None:
        """Deliver one event, or drop and count it. Never raises."""
        if name.startswith(self._own.encode()):
            return
        app = self._apps.by_id(self._app_id)
        try:
            channel = name.decode().removeprefix(self._prefix)
            if app is None or not is_valid_channel(channel) or len(channel) > app.max_channel_length:
                raise ValueError("invalid channel name")
            most = self._node.policies.of(app.id, channel).max_event_bytes or app.max_event_bytes
            publication = _publication(app, channel, payload, most)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._node.metrics.ingest_dropped += 1
            self._warn("dropped an invalid event from redis", str(error)[:200])
            return
        self._node.metrics.ingested += 1
        self._node.deliver(publication)

    def _warn(self, event: str, reason: str) -> None:
        """Log at most once a minute."""
        if self._throttle.allows(event):
            log.warning(event, reason=reason)


def _publication(app: App, channel: str, payload: bytes, max_bytes: int) -> Publication:
    """Decode a message. Raises ValueError, or msgspec's, if it may not be delivered."""
    if len(payload) > 8 * max_bytes:
        raise ValueError("too large")
    message = _decoder.decode(payload)
    is_too_long = len(message.event) > app.max_event_name_length
    if is_too_long or not is_valid_event_name(message.event) or is_reserved_event(message.event):
        raise ValueError("invalid event name")
    raw = bytes(message.data)
    raw.decode()
    data = _text_decoder.decode(raw) if raw.startswith(b'"') else raw.decode()
    size = len(data.encode())
    if size > max_bytes:
        raise ValueError(f"data is {size} bytes, more than the {max_bytes} it may have on this channel")
    socket = message.socket or None
    if socket is not None and not is_valid_socket_id(socket):
        raise ValueError("invalid socket id")
    return Publication(app.id, channel, encoding.event(message.event, channel, data), socket)


def _literal(text: str) -> str:
    """`text` as a Redis pattern that matches only itself."""
    return "".join(f"\\{character}" if character in "*?[]\\^" else character for character in text)
