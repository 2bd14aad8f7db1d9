"""Models that announce their own changes, as Laravel's do, so that Echo's `useEchoModel` hears them.

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
    """Mixin for SQLAlchemy models whose changes go out.

    `broadcast_fields` are the attributes that strangers may see; there is no default, so that nothing leaks. Changes
    made past the session (bulk updates, plain SQL) are not seen. Raises TypeError for a model that says neither
    `broadcast_fields` nor `broadcast_with`.
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
                f"{cls.__name__} broadcasts its changes: name the attributes that others may see, "
                'broadcast_fields = ("id", ...)'
            )

    def broadcast_on(self, change: Change) -> Channel | Sequence[Channel]:
        """Where a change goes, by default the model's own channel; nowhere sends nothing."""
        del change
        return model_channel(self)

    def broadcast_as(self, change: Change) -> str | enum.Enum | None:
        """The wire name, by default the class name and the change: `OrderUpdated`."""
        del change
        return None

    def broadcast_with(self, change: Change) -> Mapping[str, object]:
        """The payload, by default `{"model": {field: value}}`; of what is deleted only the key is told."""
        if change == "deleted":
            return {"model": _key(self)}
        return {"model": {name: getattr(self, name) for name in self.broadcast_fields}}


def model_channel(model: BroadcastsChanges) -> PrivateChannel:
    """The channel `useEchoModel` listens on: `App.Models.Order.7`. Raises InvalidChannel for a composite key."""
    return PrivateChannel(f"{model.broadcast_namespace}{type(model).__name__}.{_key(model)}")


@dataclass(frozen=True, slots=True)
class ModelChanged(BroadcastEvent):
    """A change of a model, as it is packed: what the model says about it."""

    model: BroadcastsChanges
    change: Change
    delivery: Delivery  # type: ignore[misc]
    broadcast_queue: str  # type: ignore[misc]
    broadcast_connections: Sequence[str]  # type: ignore[misc]

    @classmethod
    def of(cls, model: BroadcastsChanges, change: Change) -> ModelChanged:
        """The change, with what the model's class says about sending it."""
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
        raise InvalidChannel(f"{type(model).__name__} has a key of {len(key)} parts; say its channel in broadcast_on()")
    return key[0]
