"""A worker's line to the switchboard: questions and answers, publications in and out, word of its own end."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Deliver, Publication
from smartlink.server.cluster.presence.base import OnChange
from smartlink.server.workers import messages as say
from smartlink.server.workers.stream import RecordStream

__all__ = ["ParentLink"]

ANSWER_S = 5.0
"""How long an answer may take."""
REPORT_S = 1.0
MAX_LIVE_BYTES = 4 * 1024 * 1024

_ANSWERS = frozenset(
    {
        say.Accepted,
        say.Arrived,
        say.Departed,
        say.Present,
        say.Counted,
        say.Listed,
        say.Answered,
        say.Appended,
        say.Kept,
        say.Claimed,
        say.Summed,
    }
)

log = structlog.get_logger(__name__)


class ParentLink:
    """One worker's line. What comes in is handed on in the order in which it was said.

    A coroutine that an answer wakes runs before anything that was said after the answer is handed on: what it learned
    is the state at exactly that point.
    """

    def __init__(self, end: socket.socket) -> None:
        self._stream = RecordStream(end, self._on_record, self._on_end)
        self._loop = asyncio.get_running_loop()
        self._questions: dict[int, tuple[asyncio.Future[Any], float]] = {}
        self._last_id = 0
        self._unread: deque[say.FromSwitchboard] = deque()
        self._is_reading_later = False
        self._waking = 0
        """Answers whose askers have not run yet."""
        self._turn = self._settled = 0
        self._counts: dict[str, int] = {}
        self._figures: Callable[[], dict[str, float]] = dict
        self._reporting: asyncio.Task[None] | None = None
        self.elsewhere: dict[str, int] = {}
        self.deliver: Deliver | None = None
        self.on_change: OnChange | None = None
        self.on_drain: Callable[[bool], None] | None = None
        """Gets whether a successor is there already."""
        self.on_reload: Callable[[], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        """The switchboard is gone, and with it the parent."""
        self.tell(say.Hello(say.VERSION, os.getpid()))

    @property
    def is_up(self) -> bool:
        return self._stream.is_open

    @property
    def is_swamped(self) -> bool:
        """Whether so much waits for the switchboard that what may be dropped should be."""
        return self._stream.waiting_bytes > MAX_LIVE_BYTES

    def tell(self, message: msgspec.Struct) -> None:
        """Say something that has no answer."""
        self._stream.send(say.encode(message))

    def ask(self, question: Callable[[int], msgspec.Struct], answer_s: float = ANSWER_S) -> asyncio.Future[Any]:
        """Ask, pipelined; the future has the answer, or BrokerUnavailable when none comes in time or at all."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self.is_up:
            future.set_exception(BrokerUnavailable("The switchboard is gone"))
            return future
        self._last_id += 1
        self._questions[self._last_id] = (future, time.monotonic() + answer_s)
        self.tell(question(self._last_id))
        return future

    async def join(self, app_id: str, channel: str, socket_id: str, member: PresenceMember | None) -> say.Arrived:
        """Ask for a join."""
        # A parent that only stands still will carry it out: to give up would leave an entry that nobody takes out.
        arrived: say.Arrived = await self.ask(
            lambda number: say.Join(number, app_id, channel, socket_id, member), math.inf
        )
        return arrived

    def report_connections(self, app_id: str, connections: int) -> None:
        """Tell a count; of several within one turn of the loop, the last."""
        if not self._counts:
            self._loop.call_soon(self._tell_counts)
        self._counts[app_id] = connections

    def ready(self, figures: Callable[[], dict[str, float]]) -> None:
        """Say that this worker accepts, and from now on each second how it is doing."""
        self.tell(say.Ready())
        self._figures = figures
        self._reporting = self._loop.create_task(self._report())

    async def close(self) -> None:
        """End the line; what was said before arrives, and what was counted since the last report."""
        self.on_lost = None
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.wait((self._reporting,))
            self.tell(say.Report(self._figures()))
        self._stream.flush()
        waiting = self._loop.call_later(ANSWER_S, self._stream.close)
        await self._stream.drained()
        waiting.cancel()
        self._stream.close()

    async def _report(self) -> None:
        while True:
            self.tell(say.Report(self._figures()))
            await asyncio.sleep(REPORT_S)
            self._give_up(time.monotonic())

    def _give_up(self, now: float) -> None:
        """Fail the questions that were not answered in time."""
        late = [number for number, (_, until) in self._questions.items() if until < now]
        if late:
            log.error("the switchboard does not answer", questions=len(late))
        for number in late:
            future, _ = self._questions.pop(number)
            if not future.done():
                future.set_exception(BrokerUnavailable("The switchboard does not answer"))

    def _tell_counts(self) -> None:
        for app_id, connections in self._counts.items():
            self.tell(say.Connections(app_id, connections))
        self._counts.clear()

    # What comes in

    def _on_record(self, record: bytes) -> None:
        try:
            message = say.from_switchboard(record)
        except msgspec.DecodeError as error:
            log.error("the switchboard speaks another language: the line ends", problem=str(error)[:200])
            self._stream.close()
            return
        if self._unread or (self._waking and type(message) not in _ANSWERS):
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
            if self._waking and type(self._unread[0]) not in _ANSWERS:
                self._read_later()
                return
            self._act(self._unread.popleft())

    def _act(self, message: say.FromSwitchboard) -> None:
        match message:
            case say.Publish(_, app_id, channel, frame, except_socket, is_live, version):
                if self.deliver is not None:
                    self.deliver(Publication(app_id, channel, frame, except_socket, is_live, version))
            case say.Signal(_, app_id, action, target, data):
                if self.deliver is not None:
                    self.deliver(Control(app_id, action, target, data))
            case say.Accepted(number):
                self._accepted(number)
            case say.Elsewhere(app_id, connections):
                self.elsewhere[app_id] = connections
            case say.Changed(change, turn):
                if self.on_change is not None:
                    self.on_change(change)
                self._settle_later(turn)
            case say.Drain() | say.Reload():
                self._obey(message)
            case _:
                self._answer(message)

    def _obey(self, message: say.Drain | say.Reload) -> None:
        if isinstance(message, say.Drain):
            if self.on_drain is not None:
                self.on_drain(message.is_replaced)
        elif self.on_reload is not None:
            self.on_reload()

    def _accepted(self, number: int) -> None:
        """Wake a publisher. It learned no state that what follows would change: what follows need not wait for it."""
        question = self._questions.pop(number, None)
        if question is not None and not question[0].done():
            question[0].set_result(None)

    def _answer(self, answer: Any) -> None:
        question = self._questions.pop(answer.id, None)
        if question is not None and not question[0].done():
            question[0].set_result(answer)
        self._settle_later(getattr(answer, "turn", 0))

    def _settle_later(self, turn: int) -> None:
        """Behind whatever the message woke: the loop runs what is ready in order."""
        self._turn = max(self._turn, turn)
        self._waking += 1
        self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._waking -= 1
        if self._waking:
            return
        if self._turn > self._settled:
            self._settled = self._turn
            self.tell(say.Settled(self._turn))

    def _on_end(self) -> None:
        questions, self._questions = self._questions, {}
        for future, _ in questions.values():
            if not future.done():
                future.set_exception(BrokerUnavailable("The switchboard is gone"))
        if self.on_lost is not None:
            self.on_lost()
