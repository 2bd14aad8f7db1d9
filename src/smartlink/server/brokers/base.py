"""The port `Broker` and what it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Broker", "BrokerUnavailable", "Control", "Deliver", "Publication"]


class BrokerUnavailable(Exception):
    """What lies between the nodes cannot be reached now; the caller is told to come back (503)."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One frame on its way to the subscribers of one channel of one app.

    `frame` is the text frame's payload, encoded once; `except_socket` is left out. `is_live` marks what may be
    dropped under pressure and, while the nodes cannot reach each other, goes to this node's subscribers only.
    """

    app_id: str
    channel: str
    frame: bytes
    except_socket: str | None = None
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """Word from node to node: `action` says what to do, to whom is `target`, with what is `data`.

    Actions are named by whoever registers for them with `Node.on_control`; one that a node does not know is ignored,
    so that old and new versions can stand side by side.
    """

    app_id: str
    action: str
    target: str
    data: str = ""


Deliver = Callable[[Publication | Control], None]


class Broker(Protocol):
    """Carries publications between nodes.

    Promises, tried on every engine by tests/conformance/test_broker.py: each subscribed node hears a publication at
    most once, this node included; publications on one channel arrive in one order everywhere; a control reaches
    every node; after `unsubscribe` nothing of the channel arrives. `deliver` is a plain function and must not raise.
    While other nodes cannot be reached, `subscribe` still succeeds and takes effect when they can.
    """

    @property
    def is_available(self) -> bool:
        """Whether other nodes can be reached now."""

    async def start(self, deliver: Deliver) -> None: ...

    async def subscribe(self, app_id: str, channel: str) -> None:
        """Hear this channel from now on."""

    async def unsubscribe(self, app_id: str, channel: str) -> None: ...

    async def publish(self, publication: Publication | Control) -> None:
        """Send to every subscribed node. Raises BrokerUnavailable, and then nobody has it.

        A live publication never raises: while other nodes cannot be reached, this one alone hears it.
        """

    async def stop(self) -> None: ...
