"""The events of an application: one class for each, whose fields are the payload.

class OrderShipped(BroadcastEvent):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import threading
import uuid
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, dataclass_transform
from weakref import WeakSet

from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter

from smartlink.broadcasting.channels import Channel
from smartlink.broadcasting.envelope import DEFAULT_QUEUE, Delivery
from smartlink.broadcasting.errors import InvalidEventName, UnserialisablePayload

__all__ = ["AnonymousEvent", "BroadcastEvent", "BroadcastNotification", "BroadcastNow"]

NOTIFICATION_EVENT = "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated"
"""The one event name that Echo's `.notification()` listens to."""


_Event = TypeVar("_Event", bound="BroadcastEvent")
_settled: WeakSet[type] = WeakSet()
_settling = threading.Lock()


def _make_dataclass(kind: Any) -> None:
    """Turn a class with fields of its own into a dataclass, unless it already is one or has a constructor."""
    if kind in _settled:
        return
    with _settling:
        if kind not in _settled and _lacks_constructor(kind):
            bases = [base for base in kind.__mro__[1:] if "__dataclass_fields__" in vars(base)]
            is_frozen = all(base.__dataclass_params__.frozen for base in bases)
            dataclass(frozen=is_frozen)(kind)
        _settled.add(kind)


def _lacks_constructor(kind: type) -> bool:
    if issubclass(kind, BaseModel) or "__dataclass_fields__" in vars(kind) or not _own_fields(kind):
        return False
    maker = next(base for base in kind.__mro__ if "__init__" in vars(base))
    return maker is object or (maker is not kind and "__dataclass_fields__" in vars(maker))


def _own_fields(kind: type) -> set[str]:
    annotations = inspect.get_annotations(kind)
    return {name for name, annotation in annotations.items() if "ClassVar" not in str(annotation)}


def templates_of(kind: type) -> tuple[Channel, ...]:
    """Return the channels in a class's `channel` or `channels`."""
    channels: object = getattr(kind, "channel", None)
    if not isinstance(channels, Channel):
        channels = getattr(kind, "channels", None)
    named = channels if isinstance(channels, list | tuple) else (channels,)
    return tuple(channel for channel in named if isinstance(channel, Channel))


def _check_placeholders(kind: type[BroadcastEvent]) -> None:
    if kind.broadcast_on is not BroadcastEvent.broadcast_on:
        return
    known = {name for base in kind.__mro__ for name in _own_fields(base)} | set(
        inspect.signature(kind.__init__).parameters
    )
    for name in _own_fields(kind) & {"channel", "channels"}:
        if templates_of(kind) and name in vars(kind):
            raise TypeError(
                f"{kind.__name__}: {name} is annotated, and so a field that travels with the event; leave the "
                f"annotation out, or write {name}: ClassVar = ..."
            )
    for channel in templates_of(kind):
        for name in channel.placeholders:
            if name not in known and not hasattr(kind, name):
                raise TypeError(f"{kind.__name__}: {channel!r} needs a field {name}, which the class does not have")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class BroadcastEvent(ABC):  # noqa: B024 - applications' own bases may have abstract methods
    """The base class of events: a class with annotated fields, a dataclass, a pydantic model, or one with `__init__`.

    A class with annotated fields becomes a frozen dataclass when it is first used; no decorator is needed. Decorate
    it yourself if something inspects it earlier, as FastAPI does for a request's body.

    `channel = PrivateChannel("orders.{order_id}")` in the class names the channel, `channels = (...)` several; fields
    fill the placeholders. Override `broadcast_on` if that is not enough. In a pydantic model, annotate them:
    `channel: ClassVar = ...`. Defining a class with a placeholder but no such field raises TypeError.

    `delivery` is `Delivery.DURABLE` or `Delivery.LIVE`.
    `broadcast_queue` is the queue of a recorded event; a channel keeps its order within a queue.
    `broadcast_connections` names the drivers to send through, all of them; empty means the default one.
    `broadcast_receipts` has the server report which users have received a recorded event: see `EventDelivered`.
    `broadcast_rescue` reports an event that cannot be sent instead of raising, so that it never fails its caller.
    Methods are called when the event is packed, and must not be async.
    """

    __slots__ = ()
    delivery: ClassVar[Delivery] = Delivery.DURABLE
    broadcast_queue: ClassVar[str] = DEFAULT_QUEUE
    broadcast_connections: ClassVar[Sequence[str]] = ()
    broadcast_rescue: ClassVar[bool] = False
    broadcast_receipts: ClassVar[bool] = False

    if not TYPE_CHECKING:  # Type checkers derive the constructor from the fields.

        def __new__(cls, *_: Any, **__: Any) -> Self:
            _make_dataclass(cls)
            if cls.broadcast_on is BroadcastEvent.broadcast_on and not templates_of(cls):
                raise TypeError(
                    f"{cls.__name__} has no channel: set channel = PrivateChannel(...), or override broadcast_on()"
                )
            return super().__new__(cls)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in cls.__mro__[1:]:
            if issubclass(base, BroadcastEvent):
                _make_dataclass(base)
        _check_placeholders(cls)

    def broadcast_on(self) -> Channel | Sequence[Channel]:
        """Return the channel or channels to send to, by default those of the class; an empty list sends nothing."""
        return [channel.filled_by(self) for channel in templates_of(type(self))]

    def broadcast_as(self) -> str | enum.Enum:
        """Return the event's name on the wire.

        By default it is the class name after the broadcaster's namespace, as Echo's `.listen('OrderShipped')`
        expects. An overriding name is sent as it is, for Echo's `.listen('.order.shipped')`; a leading dot or
        backslash, Echo's mark for such names, is removed. An enum member stands for its value.
        """
        return class_name(self)

    def broadcast_with(self) -> Mapping[str, object]:
        """Return the payload: by default the public fields, or a pydantic model's dump. Override it to choose which
        data leaves the application."""
        return public_fields(self)

    def broadcast_with_for(self, connection: str) -> Mapping[str, object]:
        """Return the payload for one connection, given by name; by default the same for all."""
        del connection
        return self.broadcast_with()

    def broadcast_when(self) -> bool:
        """Return whether to send the event."""
        return True

    @classmethod
    def broadcast_name(cls, namespace: str = "App\\Events\\") -> str:
        """Return the name of the class's events on the wire, for those who receive them.

        `namespace` is the broadcaster's. Raises TypeError if `broadcast_as` needs the fields of an event.
        """
        try:
            own = own_name(object.__new__(cls))
        except AttributeError as error:
            raise TypeError(
                f"{cls.__name__}.broadcast_as() depends on the event's fields, so the class alone has no name: {error}"
            ) from error
        return namespace + class_name(object.__new__(cls)) if own is None else own

    @classmethod
    def broadcast_from(cls, payload: str) -> Self:
        """Return the event with a received payload, JSON as `broadcast_with` wrote it; other keys are ignored.

        Raises ValueError if it does not fit the fields, and TypeError for a class with a constructor of its own, which
        has to override this.
        """
        event: Self = adapter_of(cls).validate_json(payload)
        return event


class BroadcastNow(BroadcastEvent):
    """An event that skips the queue: sent right after the commit, at most once, never recorded."""

    __slots__ = ()
    delivery: ClassVar[Delivery] = Delivery.LIVE


@dataclass(frozen=True, slots=True)
class AnonymousEvent(BroadcastEvent):
    """An event without a class; `Broadcaster.on` builds it. `name` is sent as it is."""

    channels: tuple[Channel, ...]
    name: str | enum.Enum = "AnonymousEvent"
    payload: Mapping[str, object] = field(default_factory=dict)
    # Class variables of other events, fields of this one.
    broadcast_connections: Sequence[str] = ()  # type: ignore[misc]
    broadcast_rescue: bool = False  # type: ignore[misc]
    broadcast_receipts: bool = False  # type: ignore[misc]

    def broadcast_on(self) -> Sequence[Channel]:
        return self.channels

    def broadcast_as(self) -> str | enum.Enum:
        return self.name

    def broadcast_with(self) -> Mapping[str, object]:
        return self.payload


@dataclass(frozen=True, slots=True)
class BroadcastNotification(BroadcastEvent):
    """A notification for Echo's `.notification()` and `useEchoNotification`.

    The payload is `data` with `id` and `type` added; listeners select by `type`, which in Laravel is a class name.
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


@functools.cache
def adapter_of(kind: type[_Event]) -> TypeAdapter[_Event]:
    """Return pydantic's reader and describer of an event's fields. Raises TypeError if the class has none."""
    _make_dataclass(kind)
    try:
        return TypeAdapter(kind)
    except PydanticSchemaGenerationError as error:
        raise TypeError(
            f"{kind.__name__} has no fields to read a payload into: override broadcast_from(), or annotate its fields"
        ) from error


def own_name(event: BroadcastEvent) -> str | None:
    """Return the wire name from an overridden `broadcast_as`; None if it is not overridden.

    Raises InvalidEventName unless the name is a string or an enum member.
    """
    if type(event).broadcast_as is BroadcastEvent.broadcast_as:
        return None
    name: object = event.broadcast_as()
    if isinstance(name, enum.Enum):
        name = name.value if isinstance(name.value, str) else name.name
    if not isinstance(name, str):
        given = type(name).__name__ if name is not None else "None"
        raise InvalidEventName(f"{type(event).__name__}.broadcast_as() returned {given}; return a string")
    return name[1:] if name.startswith((".", "\\")) else name


def class_name(event: BroadcastEvent) -> str:
    """Return the name of the event's class; for a generic pydantic model, without its type arguments."""
    kind: type = type(event)
    if issubclass(kind, BaseModel):
        kind = kind.__pydantic_generic_metadata__["origin"] or kind
    return kind.__name__


def public_fields(thing: object) -> dict[str, object]:
    """Return the fields of an object whose names do not start with an underscore.

    For a pydantic model, return its dump, without excluded fields. Raises UnserialisablePayload if that fails.
    """
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
    """Return `model.model_dump()`. Raises UnserialisablePayload, naming `path`."""
    try:
        return model.model_dump()
    except (ValueError, RecursionError) as error:
        raise UnserialisablePayload(f"{path}: {error}") from error
