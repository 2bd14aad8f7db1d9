"""The port `Broker` and what it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Broker", "BrokerUnavailable", "Control", "Deliver", "Publication"]


class BrokerUnavailable(Exception):
    """The broker cannot take a publication now; the publisher is told to come back (503)."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One frame on its way to the subscribers of one channel of one app.

    `frame` is the text frame's payload, encoded once; `except_socket` is left out. A `Control` travels the same way.
    """

    app_id: str
    channel: str
    frame: bytes
    except_socket: str | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """Word from node to node: end every connection of a user."""

    app_id: str
    terminate_user: str


Deliver = Callable[[Publication | Control], None]


class Broker(Protocol):
    """Carries publications between nodes.

    Promises, tried on every engine by tests/conformance/test_broker.py: each subscribed node hears a publication at
    most once, this node included; publications on one channel arrive in one order everywhere; a control reaches
    every node; after `unsubscribe` nothing of the channel arrives. `deliver` is a plain function and must not raise.
    """

    async def start(self, deliver: Deliver) -> None: ...

    async def subscribe(self, app_id: str, channel: str) -> None:
        """Hear this channel. Raises BrokerUnavailable."""

    async def unsubscribe(self, app_id: str, channel: str) -> None: ...

    async def publish(self, publication: Publication | Control) -> None:
        """Send to every subscribed node. Raises BrokerUnavailable."""

    async def stop(self) -> None: ...
