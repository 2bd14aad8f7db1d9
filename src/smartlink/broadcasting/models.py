"""SQLAlchemy models that broadcast their own changes, as in Laravel, for Echo's `useEchoModel`.

class Order(BroadcastsChanges, Base):
    __tablename__ = "orders"
    broadcast_fields = ("id", "status")

An order's `created`, `updated` and `deleted` go out as `OrderCreated` and so on, on `private-App.Models.Order.{id}`,
with `{"model": {"id", "status"}}`. Attach `SessionBroadcasts` to the sessions that write them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sqlalchemy import inspect

from smartlink.broadcasting.channels import Channel, PrivateChannel
from smartlink.broadcasting.envelope import DEFAULT_QUEUE, Delivery
from smartlink.broadcasting.errors import InvalidChannel
from smartlink.broadcasting.events import BroadcastEvent

__all__ = ["BroadcastsChanges", "ModelChanged"]

Change = Literal["created", "updated", "deleted"]


class BroadcastsChanges:
    """Mixin for SQLAlchemy models that broadcast their changes.

    `broadcast_fields` are the attributes to send; there is no default, so that nothing leaks. Changes that bypass the
    session (bulk updates, plain SQL) are not broadcast. Raises TypeError for a model with neither `broadcast_fields`
    nor `broadcast_with`.
    """

    broadcast_fields: ClassVar[Sequence[str]] = ()
    broadcast_changes: ClassVar[Sequence[Change]] = ("created", "updated", "deleted")
    broadcast_namespace: ClassVar[str] = "App.Models."
    broadcast_delivery: ClassVar[Delivery] = Delivery.DURABLE
    broadcast_queue: ClassVar[str] = DEFAULT_QUEUE
    broadcast_connections: ClassVar[Sequence[str]] = ()
    broadcast_to_others: ClassVar[bool] = False

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        is_table = "__tablename__" in cls.__dict__ or "__table__" in cls.__dict__
        if is_table and not cls.broadcast_fields and cls.broadcast_with is BroadcastsChanges.broadcast_with:
            raise TypeError(
                f'{cls.__name__} broadcasts its changes: name the attributes to send, broadcast_fields = ("id", ...)'
            )

    def broadcast_on(self, change: Change) -> Channel | Sequence[Channel]:
        """Return the channels of a change, by default the model's own channel; an empty sequence sends nothing."""
        del change
        return model_channel(self)

    def broadcast_as(self, change: Change) -> str | enum.Enum | None:
        """Return the event's name; None, the default, means the class name and the change: `OrderUpdated`."""
        del change
        return None

    def broadcast_with(self, change: Change) -> Mapping[str, object]:
        """Return the payload, by default `{"model": {field: value}}`; for a deleted model, the key only."""
        if change == "deleted":
            return {"model": _key(self)}
        return {"model": {name: getattr(self, name) for name in self.broadcast_fields}}


def model_channel(model: BroadcastsChanges) -> PrivateChannel:
    """Return the channel for `useEchoModel`: `App.Models.Order.7`. Raises InvalidChannel for a composite key."""
    return PrivateChannel(f"{model.broadcast_namespace}{type(model).__name__}.{_key(model)}")


@dataclass(frozen=True, slots=True)
class ModelChanged(BroadcastEvent):
    """The event of a model's change; its properties come from the model."""

    model: BroadcastsChanges
    change: Change
    delivery: Delivery  # type: ignore[misc]
    broadcast_queue: str  # type: ignore[misc]
    broadcast_connections: Sequence[str]  # type: ignore[misc]

    @classmethod
    def of(cls, model: BroadcastsChanges, change: Change) -> ModelChanged:
        """Return the event for a change, with the delivery options of the model's class."""
        return cls(model, change, model.broadcast_delivery, model.broadcast_queue, model.broadcast_connections)

    def broadcast_on(self) -> Channel | Sequence[Channel]:
        return self.model.broadcast_on(self.change)

    def broadcast_as(self) -> str | enum.Enum:
        return self.model.broadcast_as(self.change) or f"{type(self.model).__name__}{self.change.capitalize()}"

    def broadcast_with(self) -> Mapping[str, object]:
        return self.model.broadcast_with(self.change)


def _key(model: object) -> object:
    state: Any = inspect(model)
    key = state.identity or state.mapper.primary_key_from_instance(model)
    if len(key) != 1:
        raise InvalidChannel(f"{type(model).__name__} has a composite key of {len(key)} columns; define broadcast_on()")
    return key[0]
