"""What an application announces: a class per event, its fields the payload.

@dataclass(frozen=True)
class OrderShipped(BroadcastEvent):
    order: Order

    def broadcast_on(self) -> Channel:
        return PrivateChannel(f"orders.{self.order.id}")
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from smartlink.broadcasting.channels import Channel
from smartlink.broadcasting.envelope import DEFAULT_QUEUE, Promise

__all__ = ["BroadcastEvent"]


class BroadcastEvent(ABC):
    """Base of broadcastable events: a dataclass, a pydantic model, or a plain class with public attributes.

    Only `broadcast_on` must be written. `promise` says how surely the event arrives; see `Promise`.
    `broadcast_queue` is where it waits for a worker when it is recorded; a channel keeps its order within a queue.
    """

    __slots__ = ()
    promise: ClassVar[Promise] = Promise.DURABLE
    broadcast_queue: ClassVar[str] = DEFAULT_QUEUE

    @abstractmethod
    def broadcast_on(self) -> Channel | Sequence[Channel]:
        """The channel or channels the event goes to; none at all sends nothing."""

    def broadcast_as(self) -> str:
        """The event's name on the wire.

        Not overridden, it is the class name behind the broadcaster's namespace, as Echo's `.listen('OrderShipped')`
        expects. A name returned by an override is sent as it is, for Echo's `.listen('.order.shipped')`.
        """
        return type(self).__name__

    def broadcast_with(self) -> Mapping[str, object]:
        """The payload, by default the public fields. Override it to choose what strangers may see."""
        return public_fields(self)

    def broadcast_when(self) -> bool:
        """Whether to send at all."""
        return True


def has_own_name(event: BroadcastEvent) -> bool:
    """Whether the event's class chose its wire name itself."""
    return type(event).broadcast_as is not BroadcastEvent.broadcast_as


def public_fields(event: object) -> dict[str, object]:
    """The fields of a dataclass, pydantic model or plain object whose names do not start with an underscore."""
    if dataclasses.is_dataclass(event):
        names: Sequence[str] = [field.name for field in dataclasses.fields(event)]
    else:
        names = list(getattr(type(event), "model_fields", None) or vars(event))
    return {name: getattr(event, name) for name in names if not name.startswith("_")}
