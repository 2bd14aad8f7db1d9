"""A worker's link to the hub in its parent: calls and replies, publications in and out, orders to drain or reload."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

import msgspec
import structlog

from smartlink.background import ended
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Deliver, Publication
from smartlink.server.cluster.presence.base import OnChange, PresenceStore
from smartlink.server.workers import messages
from smartlink.server.workers.calls import ERRORS, signature_of
from smartlink.server.workers.order import Ordering
from smartlink.server.workers.stream import RecordStream

__all__ = ["ANSWER_S", "ParentLink"]

ANSWER_S = 5.0
"""Longest wait for a reply."""
REPORT_S = 1.0
MAX_LIVE_BYTES = 4 * 1024 * 1024
"""Bytes that may wait for the hub before live publications are dropped."""

_REPLIES = frozenset({messages.Accepted, messages.Reply, messages.ErrorReply})

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
log = structlog.get_logger(__name__)


class ParentLink:
    """The link of one worker. Records are acted on in the order in which the hub sent them.

    A coroutine that a reply wakes runs before any record sent after that reply is acted on: what the coroutine learned
    is the state at exactly that point.
    """

    def __init__(self, end: socket.socket, order: socket.socket) -> None:
        """`order` is the workers' end of the socket that orders publications (`order.ordering_pair`)."""
        self._stream = RecordStream(
            end, self._on_record, self._on_end, may_flush=lambda: not self._ordering.waiting_bytes
        )
        # What a record says about a publication, such as that it was announced, must not overtake it.
        self._ordering = Ordering(order, self._stream.flush)
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, tuple[asyncio.Future[Any], float]] = {}
        """By number: who awaits a reply, and until when."""
        self._last_number = 0
        self._unread: deque[messages.FromHub] = deque()
        self._is_reading_later = False
        self._waking = 0
        """Replies whose callers have not run yet."""
        self._turn = self._settled = 0
        self._counts: dict[str, int] = {}
        self._figures: Callable[[], dict[str, float]] = dict
        self._reporting: asyncio.Task[None] | None = None
        self.elsewhere: dict[str, int] = {}
        """By app id: connections of the other workers."""
        self.deliver: Deliver | None = None
        self.on_change: OnChange | None = None
        self.on_drain: Callable[[bool], None] | None = None
        """Called with whether a successor runs already."""
        self.on_reload: Callable[[], None] | None = None
        self.on_question: Callable[[bytes], Coroutine[Any, Any, bytes]] | None = None
        """Answers a question of operators."""
        self._answering: set[asyncio.Task[None]] = set()
        self.on_lost: Callable[[], None] | None = None
        """Called when the parent is gone."""
        self.send(messages.Hello(messages.VERSION, os.getpid()))

    @property
    def is_up(self) -> bool:
        return self._stream.is_open

    @property
    def is_swamped(self) -> bool:
        """Whether so much waits for the hub that live publications should be dropped."""
        return self._stream.waiting_bytes + self._ordering.waiting_bytes > MAX_LIVE_BYTES

    def send(self, message: msgspec.Struct) -> None:
        """Send a record that has no reply."""
        self._stream.send(messages.encode(message))

    async def call(
        self,
        method: Callable[[Any, *Arguments], Coroutine[Any, Any, T]],
        *arguments: *Arguments,
        answer_s: float = ANSWER_S,
    ) -> T:
        """Call a method of a port, such as `History.append`, in the parent; calls are pipelined.

        Raises what the port declares, and BrokerUnavailable when no reply comes within `answer_s` seconds.
        """
        signature = signature_of(method)
        number, future = self._expect(answer_s)
        if number:
            self.send(messages.Call(number, signature.port, signature.method, _encoded(arguments)))
        result: T = signature.decode_result(await future)
        return result

    def notify(self, method: Callable[[Any, *Arguments], object], *arguments: *Arguments) -> None:
        """Call a method of a port in the parent without waiting; its result is dropped."""
        signature = signature_of(method)
        self.send(messages.Call(0, signature.port, signature.method, _encoded(arguments)))

    def order(self, publication: Publication) -> asyncio.Future[None] | None:
        """Give a publication its place among those of all workers: None if it has it, else a future.

        Raises TooLarge for one that must be forwarded by `publish`, and BrokerUnavailable.
        """
        return self._ordering.send(messages.encode(messages.forward_publication(publication)))

    def publish(self, publication: Publication | Control) -> asyncio.Future[None]:
        """Forward a publication; the future is done when the hub has accepted it, or raises BrokerUnavailable."""
        number, future = self._expect(ANSWER_S)
        if number:
            self.send(messages.forward(publication, number))
        return future

    def publish_live(self, publication: Publication) -> None:
        """Forward a publication without waiting."""
        self.send(messages.forward(publication))

    def report_connections(self, app_id: str, connections: int) -> None:
        """Report a count; of several within one turn of the loop, only the last."""
        if not self._counts:
            self._loop.call_soon(self._send_counts)
        self._counts[app_id] = connections

    def ready(self, figures: Callable[[], dict[str, float]]) -> None:
        """Tell the parent that this worker accepts connections; from now on report `figures` each second."""
        self.send(messages.Ready())
        self._figures = figures
        self._reporting = self._loop.create_task(self._report())

    async def close(self) -> None:
        """End the link; what was sent before arrives, and so do the last figures."""
        self.on_lost = None
        await ended(*self._answering)
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.wait((self._reporting,))
            self.send(messages.WorkerReport(self._figures()))
        self._stream.flush()
        waiting = self._loop.call_later(ANSWER_S, self._stream.close)
        await self._stream.drained()
        waiting.cancel()
        self._stream.close()
        self._ordering.close()

    def _expect(self, answer_s: float) -> tuple[int, asyncio.Future[Any]]:
        """Return a number and the future of its reply; 0 and a failed future when the parent is gone."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self.is_up:
            future.set_exception(BrokerUnavailable("The parent process is gone"))
            return 0, future
        self._last_number += 1
        self._waiting[self._last_number] = (future, time.monotonic() + answer_s)
        return self._last_number, future

    async def _report(self) -> None:
        while True:
            self.send(messages.WorkerReport(self._figures()))
            await asyncio.sleep(REPORT_S)
            self._give_up(time.monotonic())

    def _give_up(self, now: float) -> None:
        """Fail the calls that got no reply in time, and the publications that got no place."""
        self._ordering.give_up(ANSWER_S)
        late = [number for number, (_, until) in self._waiting.items() if until < now]
        if late:
            log.error("the parent process does not reply", calls=len(late))
        for number in late:
            future, _ = self._waiting.pop(number)
            if not future.done():
                future.set_exception(BrokerUnavailable("The parent process does not reply"))

    def _send_counts(self) -> None:
        for app_id, connections in self._counts.items():
            self.notify(PresenceStore.report_connections, app_id, connections)
        self._counts.clear()

    # Records from the hub

    def _on_record(self, record: bytes) -> None:
        try:
            message = messages.from_hub(record)
        except msgspec.DecodeError as error:
            log.error("invalid record from the parent process: closing the link", problem=str(error)[:200])
            self._stream.close()
            return
        if self._unread or (self._waking and type(message) not in _REPLIES):
            self._unread.append(message)
            self._read_later()
        else:
            self._act(message)

    def _read_later(self) -> None:
        if not self._is_reading_later:
            self._is_reading_later = True
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._is_reading_later = False
        while self._unread:
            if self._waking and type(self._unread[0]) not in _REPLIES:
                self._read_later()
                return
            self._act(self._unread.popleft())

    def _act(self, message: messages.FromHub) -> None:
        match message:
            case messages.ForwardedPublication() | messages.ForwardedControl():
                if self.deliver is not None:
                    self.deliver(messages.forwarded(message))
            case messages.Accepted(number):
                # The publisher learned no state that later records change: they need not wait for it.
                self._resolve(number, None)
            case messages.Reply(number, result, turn):
                self._resolve(number, result)
                self._settle_later(turn)
            case messages.ErrorReply(number, error):
                self._fail(number, ERRORS[error]())
                self._settle_later(0)
            case messages.ConnectionsElsewhere(app_id, connections):
                self.elsewhere[app_id] = connections
            case messages.PresenceChange(change, turn):
                if self.on_change is not None:
                    self.on_change(change)
                self._settle_later(turn)
            case messages.OperatorQuestion(number, question):
                task = self._loop.create_task(self._answer(number, question))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            case messages.Drain() | messages.Reload():
                self._obey(message)

    async def _answer(self, number: int, question: bytes) -> None:
        if self.on_question is not None:
            self.send(messages.OperatorAnswer(number, await self.on_question(question)))

    def _obey(self, order: messages.Drain | messages.Reload) -> None:
        if isinstance(order, messages.Drain):
            if self.on_drain is not None:
                self.on_drain(order.is_replaced)
        elif self.on_reload is not None:
            self.on_reload()

    def _resolve(self, number: int, result: msgspec.Raw | None) -> None:
        future, _ = self._waiting.pop(number, (None, 0.0))
        if future is not None and not future.done():
            future.set_result(result)

    def _fail(self, number: int, error: Exception) -> None:
        future, _ = self._waiting.pop(number, (None, 0.0))
        if future is not None and not future.done():
            future.set_exception(error)

    def _settle_later(self, turn: int) -> None:
        """Settle once what the record woke has run: the loop runs callbacks in order."""
        self._turn = max(self._turn, turn)
        self._waking += 1
        self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._waking -= 1
        if self._waking:
            return
        if self._turn > self._settled:
            self._settled = self._turn
            self.send(messages.Settled(self._turn))

    def _on_end(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(BrokerUnavailable("The parent process is gone"))
        if self.on_lost is not None:
            self.on_lost()


def _encoded(arguments: tuple[Any, ...]) -> msgspec.Raw:
    return msgspec.Raw(messages.encode(arguments))
