"""One worker, as the hub sees it: its link, and everything that goes when the worker goes."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Protocol

import msgspec
import structlog

from smartlink.protocol.session import PresenceMember
from smartlink.server.workers import messages
from smartlink.server.workers.calls import UnknownCall
from smartlink.server.workers.stream import RecordStream
from smartlink.server.workers.turns import TurnTaker

__all__ = ["Entry", "WorkerPeer"]

Key = tuple[str, str]
Entry = tuple[str, str, str]
"""App id, channel, socket id."""
log = structlog.get_logger(__name__)


class _Hub(Protocol):
    def act(self, peer: WorkerPeer, message: messages.FromWorker, record: bytes) -> None: ...

    def leave(self, peer: WorkerPeer) -> None: ...

    def take_ordered(self) -> None: ...


class WorkerPeer(TurnTaker):
    """One worker, as the hub sees it."""

    def __init__(self, hub: _Hub, end: socket.socket) -> None:
        super().__init__()
        self._hub = hub
        self.stream = RecordStream(end, self._on_record, self._on_end, hub.take_ordered)
        self.pid = 0
        self.is_ready = False
        self.is_leaving = False
        """It drains: announcements go to another worker."""
        self.failure: str | None = None
        """Why it cannot start."""
        self.heard_at = time.monotonic()
        self.figures: dict[str, float] = {}
        self.connections: dict[str, int] = {}
        """By app id."""
        self.subscriptions: set[Key] = set()
        self.entries: dict[Entry, PresenceMember | None] = {}
        """Its connections in the presence store."""
        self.graces: dict[Entry, int] = {}
        """How many seconds some of them stay if the worker dies."""
        self.claims: set[tuple[str, str]] = set()
        """Requests that it is carrying out: app id and idempotency key."""
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._last_question = 0
        self.has_changed = asyncio.Event()
        """Set when it became ready, failed or ended."""

    @property
    def is_open(self) -> bool:
        return self.stream.is_open

    def send(self, message: msgspec.Struct) -> None:
        """Send a record to the worker."""
        self.stream.send(messages.encode(message))

    async def ask(self, question: bytes, timeout_s: float) -> bytes:
        """Ask an operators' question. Raises TimeoutError if no answer comes, also because the worker ended."""
        self._last_question += 1
        number = self._last_question
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self.send(messages.OperatorQuestion(number, question))
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            del self._asked[number]

    def answered(self, number: int, answer: bytes) -> None:
        """Take the answer to a question."""
        future = self._asked.get(number)
        if future is not None and not future.done():
            future.set_result(answer)

    def close(self) -> None:
        """Close the link."""
        self.stream.close()

    def _on_record(self, record: bytes) -> None:
        self.heard_at = time.monotonic()
        try:
            self._hub.act(self, messages.from_worker(record), record)
        except (msgspec.DecodeError, UnknownCall) as error:
            log.error("invalid record from a worker: closing its link", pid=self.pid, problem=str(error)[:200])
            self.close()

    def _on_end(self) -> None:
        self._hub.leave(self)
        self.has_changed.set()
