"""Asks all nodes an operator's question, and brings what their feeds tell.

A question travels as a control, which reaches every node whatever joins them; answers and feed batches come back as
live publications on an internal channel of the asking node. Nodes keep nothing for each other but leased watches.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

import msgspec

from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Publication
from smartlink.server.core.node import Node
from smartlink.server.observe.questions import Questions
from smartlink.server.observe.records import Answer, FromNode, Question, Replies, Told
from smartlink.server.observe.webhook_desk import Refused
from smartlink.server.runtime.feed import Batch

__all__ = ["LEASE_S", "Agent"]

ACTION: Final = "operators"
OWN_APP: Final = "#"
"""Stands for the app id: what operators ask concerns no single application."""
ANSWER_S = 2.0
"""Longest wait for the other nodes; the answer is then what came."""
LEASE_S = 10.0
FLUSH_S = 0.25
HERE = frozenset({"apps", "send", "history", "webhooks_failed", "webhooks_retry", "webhooks_forget"})
"""Questions that one node answers for all."""

_encode = msgspec.json.Encoder().encode
_question = msgspec.json.Decoder(Question).decode
_from_node = msgspec.json.Decoder(FromNode).decode


class _Asked:
    __slots__ = ("answers", "expected", "is_complete")

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.answers: list[Answer] = []
        self.is_complete = asyncio.Event()


class Agent:
    """Speaks with the other nodes for operators. Costs nothing until somebody asks."""

    def __init__(self, node: Node, questions: Questions) -> None:
        self._node = node
        self._questions = questions
        self._feed = node.feed
        self._reply_to = f"#operators-{secrets.token_hex(8)}"
        self._is_listening = False
        self._asked: dict[int, _Asked] = {}
        self._last = 0
        self._flushing: asyncio.TimerHandle | None = None
        self.on_told: Callable[[Told], None] | None = None
        """Called with what watches that were set here collected on any node."""
        node.on_control(ACTION, self._on_control)

    async def ask(self, question: Question) -> Replies:
        """Ask all nodes, or this one if it can answer for all."""
        if question.kind in HERE:
            return Replies([await self._answer(0, question)], 1)
        if not self._is_listening:
            self._is_listening = True
            await self._node.subscribe_internal(OWN_APP, self._reply_to, self._on_frame)
        self._last += 1
        number, asked = self._last, _Asked(await self._node.presence.nodes())
        self._asked[number] = asked
        try:
            target = f"{self._reply_to}/{number}"
            await self._node.tell(Control(OWN_APP, ACTION, target, _encode(question).decode()))
            async with asyncio.timeout(ANSWER_S):
                await asked.is_complete.wait()
        except TimeoutError:
            pass  # the caller sees by the number expected that some are missing
        except BrokerUnavailable:
            # The others cannot be asked.
            asked.answers = [await self._answer(number, question)]
        finally:
            del self._asked[number]
        return Replies(asked.answers, max(asked.expected, len(asked.answers)))

    def stop(self) -> None:
        """Stop the timer."""
        if self._flushing is not None:
            self._flushing.cancel()

    def _on_control(self, control: Control) -> None:
        try:
            question = _question(control.data)
            reply_to, _, number = control.target.rpartition("/")
            self._node.tasks.run(self._reply(reply_to, int(number), question))
        except (msgspec.DecodeError, ValueError):
            self._node.metrics.bus_messages_dropped += 1

    async def _reply(self, reply_to: str, number: int, question: Question) -> None:
        if question.kind == "watch" and question.shown is not None:
            answer = self._watch(number, question, reply_to)
        elif question.kind == "unwatch":
            self._feed.unwatch(question.watch_id)
            answer = Answer(number, self._questions.name)
        else:
            answer = await self._answer(number, question)
        await self._send(reply_to, answer)

    async def _answer(self, number: int, question: Question) -> Answer:
        try:
            body = await self._questions.answer(question)
        except Refused as refused:
            return Answer(number, self._questions.name, fault=str(refused), status=refused.status)
        except BrokerUnavailable as error:
            return Answer(number, self._questions.name, fault=str(error), status=503)
        return Answer(number, self._questions.name, msgspec.Raw(_encode(body)))

    def _watch(self, number: int, question: Question, reply_to: str) -> Answer:
        assert question.shown is not None  # noqa: S101 — checked by the caller
        if not self._feed.watch(question.watch_id, question.shown, reply_to, LEASE_S):
            return Answer(number, self._questions.name, fault="Too many consoles are open", status=429)
        if self._flushing is None:
            self._flush_later()
        return Answer(number, self._questions.name)

    def _flush_later(self) -> None:
        self._flushing = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        told: dict[str, dict[str, Batch]] = {}
        for watch_id, reply_to, batch in self._feed.collect():
            told.setdefault(reply_to, {})[watch_id] = batch
        for reply_to, batches in told.items():
            self._node.tasks.run(self._send(reply_to, Told(self._questions.name, batches)))
        if self._feed.watches:
            self._flush_later()

    async def _send(self, reply_to: str, message: FromNode) -> None:
        await self._node.tell(Publication(OWN_APP, reply_to, _encode(message), is_live=True))

    def _on_frame(self, frame: bytes) -> None:
        try:
            message = _from_node(frame)
        except msgspec.DecodeError:
            self._node.metrics.bus_messages_dropped += 1
            return
        if isinstance(message, Told):
            if self.on_told is not None:
                self.on_told(message)
        elif (asked := self._asked.get(message.number)) is not None:
            asked.answers.append(message)
            if len(asked.answers) >= asked.expected:
                asked.is_complete.set()
