"""How operators' questions reach the nodes: through the node in this process, or through a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from smartlink.server.observe.agent import ANSWER_S, Agent
from smartlink.server.observe.records import Question, Replies, Told
from smartlink.server.observe.webhook_desk import Refused
from smartlink.server.workers import messages
from smartlink.server.workers.hub import WorkerHub
from smartlink.server.workers.parent_link import ParentLink

__all__ = ["Gateway", "MachineGateway", "serve_questions"]

WORKER_S = ANSWER_S + 3.0
_encode = msgspec.json.Encoder().encode


class Gateway(Protocol):
    """Asks all nodes."""

    on_told: Callable[[Told], None] | None

    async def ask(self, question: Question) -> Replies:
        """Ask all nodes, or one if it can answer for all. Raises Refused if none can be reached."""


class MachineGateway:
    """A `Gateway` of a machine: asks its only process (`local`), or any of its workers."""

    def __init__(self, worker_hub: WorkerHub, local: Callable[[], Agent | None]) -> None:
        self._worker_hub = worker_hub
        self._local = local
        self.on_told: Callable[[Told], None] | None = None
        worker_hub.on_told = self._told

    async def ask(self, question: Question) -> Replies:
        agent = self._local()
        if agent is not None:
            agent.on_told = self.on_told
            return await agent.ask(question)
        for peer in tuple(self._worker_hub.peers):
            if peer.is_ready and not peer.is_leaving:
                try:
                    return msgspec.json.decode(await peer.ask(_encode(question), WORKER_S), type=Replies)
                except TimeoutError:
                    continue  # it hangs or has ended: ask another
        raise Refused(503, "No worker of this machine answers")

    def _told(self, told: bytes) -> None:
        if self.on_told is not None:
            self.on_told(msgspec.json.decode(told, type=Told))


def serve_questions(agent: Agent, parent_link: ParentLink) -> None:
    """Let the parent ask the nodes through this worker."""

    async def answer(question: bytes) -> bytes:
        return _encode(await agent.ask(msgspec.json.decode(question, type=Question)))

    parent_link.on_question = answer
    agent.on_told = lambda told: parent_link.send(messages.OperatorTold(_encode(told)))
