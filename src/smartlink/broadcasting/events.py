"""What an application announces: a class per event, its fields the payload.

@dataclass(frozen=True)
class OrderShipped(BroadcastEvent):
    order: Order

    def broadcast_on(self) -> Channel:
        return PrivateChannel(f"orders.{self.order.id}")
"""

from __future__ import annotations

import dataclasses
import enum
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel

from smartlink.broadcasting.channels import Channel
from smartlink.broadcasting.envelope import DEFAULT_QUEUE, Delivery
from smartlink.broadcasting.errors import InvalidEventName, UnserialisablePayload

__all__ = ["AnonymousEvent", "BroadcastEvent", "BroadcastNotification", "BroadcastNow"]

NOTIFICATION_EVENT = "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated"
"""The one event name that Echo's `.notification()` listens to."""


class BroadcastEvent(ABC):
    """Base of broadcastable events: a dataclass, a pydantic model, or a plain class with public attributes.

    Only `broadcast_on` must be written. `delivery` says how surely the event arrives; see `Delivery`.
    `broadcast_queue` is where it waits for a worker when it is recorded; a channel keeps its order within a queue.
    `broadcast_connections` are the drivers it goes through, by name, all of them; none named means the default one.
    What an event says of itself is asked when it is packed, without waiting: none of its methods may be async.
    With `broadcast_rescue`, an event that cannot be sent is reported instead of raising: for what must never stop
    the work it tells of.
    """

    __slots__ = ()
    delivery: ClassVar[Delivery] = Delivery.DURABLE
    broadcast_queue: ClassVar[str] = DEFAULT_QUEUE
    broadcast_connections: ClassVar[Sequence[str]] = ()
    broadcast_rescue: ClassVar[bool] = False

    @abstractmethod
    def broadcast_on(self) -> Channel | Sequence[Channel]:
        """The channel or channels the event goes to; none at all sends nothing."""

    def broadcast_as(self) -> str | enum.Enum:
        """The event's name on the wire.

        Not overridden, it is the class name behind the broadcaster's namespace, as Echo's `.listen('OrderShipped')`
        expects. What an override gives is sent as it is, for Echo's `.listen('.order.shipped')`; a dot or backslash
        in front, which is how Echo marks such names, is taken off. An enum's member stands for its value.
        """
        return class_name(self)

    def broadcast_with(self) -> Mapping[str, object]:
        """The payload, by default the public fields, of a pydantic model what it dumps. Override it to choose what
        strangers may see."""
        return public_fields(self)

    def broadcast_with_for(self, connection: str) -> Mapping[str, object]:
        """The payload for one connection, by its name: by default the same for all."""
        del connection
        return self.broadcast_with()

    def broadcast_when(self) -> bool:
        """Whether to send at all."""
        return True


class BroadcastNow(BroadcastEvent):
    """An event that no queue delays: sent straight after the commit, at most once, never recorded."""

    __slots__ = ()
    delivery: ClassVar[Delivery] = Delivery.LIVE


@dataclass(frozen=True, slots=True)
class AnonymousEvent(BroadcastEvent):
    """An event without a class of its own; `Broadcaster.on` builds it. `name` is sent as it is."""

    channels: tuple[Channel, ...]
    name: str | enum.Enum = "AnonymousEvent"
    payload: Mapping[str, object] = field(default_factory=dict)
    # Class variables of every event, fields of this one.
    broadcast_connections: Sequence[str] = ()  # type: ignore[misc]
    broadcast_rescue: bool = False  # type: ignore[misc]

    def broadcast_on(self) -> Sequence[Channel]:
        return self.channels

    def broadcast_as(self) -> str | enum.Enum:
        return self.name

    def broadcast_with(self) -> Mapping[str, object]:
        return self.payload


@dataclass(frozen=True, slots=True)
class BroadcastNotification(BroadcastEvent):
    """A notification as Echo's `.notification()` and `useEchoNotification` hear it.

    The payload is `data` with `id` and `type` added; `type` is what listeners choose by, in Laravel a class name.
    """

    channel: Channel
    type: str
    data: Mapping[str, object] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def broadcast_on(self) -> Channel:
        return self.channel

    def broadcast_as(self) -> str:
        return NOTIFICATION_EVENT

    def broadcast_with(self) -> Mapping[str, object]:
        return {**self.data, "id": self.id, "type": self.type}


def own_name(event: BroadcastEvent) -> str | None:
    """The wire name that the event's class chose itself; None when it is to be named after the class.

    Raises InvalidEventName for what is neither text nor an enum's member.
    """
    if type(event).broadcast_as is BroadcastEvent.broadcast_as:
        return None
    name: object = event.broadcast_as()
    if isinstance(name, enum.Enum):
        name = name.value if isinstance(name.value, str) else name.name
    if not isinstance(name, str):
        given = type(name).__name__ if name is not None else "None"
        raise InvalidEventName(f"{type(event).__name__}.broadcast_as() gave {given}; give the name as text")
    return name[1:] if name.startswith((".", "\\")) else name


def class_name(event: BroadcastEvent) -> str:
    """What an event is called after its class: of a generic pydantic model, without the types it was given."""
    kind: type = type(event)
    if issubclass(kind, BaseModel):
        kind = kind.__pydantic_generic_metadata__["origin"] or kind
    return kind.__name__


def public_fields(thing: object) -> dict[str, object]:
    """The fields of a dataclass or plain object whose names do not start with an underscore; of a pydantic model what
    it dumps, so that excluded fields stay out. Raises UnserialisablePayload for a model that cannot be dumped."""
    if isinstance(thing, BaseModel):
        return dumped(thing, type(thing).__name__)
    if dataclasses.is_dataclass(thing):
        names = [field.name for field in dataclasses.fields(thing)]
    else:
        slots = (getattr(kind, "__slots__", ()) for kind in reversed(type(thing).__mro__))
        names = [name for own in slots for name in ((own,) if isinstance(own, str) else own) if hasattr(thing, name)]
        names += getattr(thing, "__dict__", ())
    return {name: getattr(thing, name) for name in names if not name.startswith("_")}


def dumped(model: BaseModel, path: str) -> dict[str, object]:
    """What a pydantic model says it is made of. Raises UnserialisablePayload, naming `path`."""
    try:
        return model.model_dump()
    except (ValueError, RecursionError) as error:
        raise UnserialisablePayload(f"{path}: {error}") from error
