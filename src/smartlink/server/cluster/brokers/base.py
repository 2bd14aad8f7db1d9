"""The port `Broker` and what it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from smartlink.protocol.names import is_valid_socket_id

__all__ = [
    "Broker",
    "BrokerUnavailable",
    "Control",
    "Deliver",
    "Publication",
    "is_left_out",
    "left_out",
    "left_out_parts",
]


class BrokerUnavailable(Exception):
    """What lies between the nodes cannot be used now, and why; the caller is told to come back (503)."""

    def __init__(self, reason: str = "Other nodes are unreachable") -> None:
        super().__init__(reason)


class Publication(msgspec.Struct, frozen=True):
    """One frame on its way to the subscribers of one channel of one app.

    `frame` is the text frame's payload, encoded once; `except_socket` says who is left out (see `left_out`). `is_live`
    marks what may be dropped under pressure and, while the nodes cannot reach each other, goes to this node's
    subscribers only.
    """

    app_id: str
    channel: str
    frame: bytes
    except_socket: str | None = None
    is_live: bool = False
    version: int = 0
    """Of a coming or going its number, as the roster gave it (`presence.base.State`); 0 for all else."""


def left_out(socket_id: str | None, user_id: str | None) -> str | None:
    """Who is left out, as one text: a socket id, `@` and a user's id for all their sockets, or the two together."""
    return socket_id if user_id is None else f"{socket_id or ''}@{user_id}"


def left_out_parts(text: str) -> tuple[str, str | None]:
    """The socket id, empty for none, and the user's id of such a text."""
    socket_id, at, user_id = text.partition("@")
    return socket_id, user_id if at else None


def is_left_out(text: str) -> bool:
    """Whether a neighbour's text is one of these."""
    socket_id, user_id = left_out_parts(text)
    return is_valid_socket_id(socket_id) or (not socket_id and bool(user_id))


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
