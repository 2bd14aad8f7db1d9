"""The port `Broker` and its messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    "Retention",
    "is_left_out",
    "left_out",
    "left_out_parts",
]


class BrokerUnavailable(Exception):
    """The connection between nodes is unavailable; the message says why. The caller is asked to retry (503)."""

    def __init__(self, reason: str = "Other nodes are unreachable") -> None:
        super().__init__(reason)


class Retention(msgspec.Struct, frozen=True):
    """How many of a channel's last events are kept for later, and for how many seconds each."""

    frames: int = 100
    ttl_s: float = 120.0
    max_bytes: int = 1_048_576
    is_always: bool = False
    """Kept even if no node has called `Broker.retain` for the channel lately."""


class Publication(msgspec.Struct, frozen=True):
    """One frame for the subscribers of one channel of one app.

    `frame` is the text frame's payload, encoded once; `except_socket` excludes recipients (see `left_out`). `is_live`
    marks frames that may be dropped under pressure and that reach only this node's subscribers while the nodes cannot
    reach each other.
    """

    app_id: str
    channel: str
    frame: bytes
    except_socket: str | None = None
    is_live: bool = False
    version: int = 0
    """Number of a join or leave, as assigned by the presence store (`presence.base.ChannelState`); 0 for everything
    else.
    """
    position: int = 0
    """Place on the channel, given by the broker to events that it keeps; 0 for everything else."""
    retention: Retention | None = None
    """Set by the publisher of a durable event that may be kept; None for live ones and the server's own frames."""
    report_id: str | None = None
    """The event's id, if the application wants to know which users have received it."""
    trace: str | None = None
    """The `traceparent` of the span that published it, if it is traced."""
    published_at: float = 0.0
    """When a publisher or client sent it, in seconds since 1970 by its node's clock; 0 for the server's own frames."""


def left_out(socket_id: str | None, user_id: str | None) -> str | None:
    """Encode the excluded recipients: a socket id, `@` and a user id for all the user's sockets, or both together."""
    return socket_id if user_id is None else f"{socket_id or ''}@{user_id}"


def left_out_parts(text: str) -> tuple[str, str | None]:
    """The socket id (may be empty) and the user id of such a text."""
    socket_id, at, user_id = text.partition("@")
    return socket_id, user_id if at else None


def is_left_out(text: str) -> bool:
    """Whether a text received from another node is valid."""
    socket_id, user_id = left_out_parts(text)
    return is_valid_socket_id(socket_id) or (not socket_id and bool(user_id))


@dataclass(frozen=True, slots=True)
class Control:
    """A command from node to node: `action` with its `target` and `data`.

    Actions are registered with `Node.on_control`; a node ignores those it does not know, so that old and new versions
    can run side by side.
    """

    app_id: str
    action: str
    target: str
    data: str = ""


Deliver = Callable[[Publication | Control], None]


class Broker(Protocol):
    """Carries publications between nodes.

    tests/conformance/test_broker.py checks these promises for every engine: each subscribed node, including this one,
    receives a publication at most once; publications on one channel arrive in the same order everywhere; a control
    reaches every node; after `unsubscribe` nothing of the channel arrives. `deliver` is synchronous and must not raise.
    While other nodes are unreachable, `subscribe` still succeeds and takes effect once they return.
    """

    @property
    def is_available(self) -> bool:
        """Whether other nodes are reachable."""

    async def start(self, deliver: Deliver) -> None: ...

    async def subscribe(self, app_id: str, channel: str) -> None:
        """Receive this channel from now on."""

    async def unsubscribe(self, app_id: str, channel: str) -> None: ...

    async def publish(self, publication: Publication | Control) -> None:
        """Send to every subscribed node. Raises BrokerUnavailable, and then no node has it.

        A live publication never raises: while other nodes are unreachable, only this node receives it.
        """

    async def retain(self, app_id: str, channel: str, ttl_s: float) -> int:
        """Keep the channel's events for `replay`, whichever node publishes them, at least `ttl_s` seconds from now.

        Returns the position of the last event so far: all later ones have a higher one, even if all nodes and Redis
        restart in between. Raises BrokerUnavailable.
        """

    async def replay(self, app_id: str, channel: str, after: int | None) -> Sequence[Publication] | None:
        """Return the kept events after a position, oldest first; None if it is unknown whether these are all.

        Without a position, returns all that are kept. Raises BrokerUnavailable.
        """

    async def stop(self) -> None: ...
