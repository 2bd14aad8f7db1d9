"""What models that broadcast their own changes have in common, whichever ORM they belong to."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from smartlink.broadcasting.channels import Channel, PrivateChannel
from smartlink.broadcasting.envelope import DEFAULT_QUEUE, Delivery
from smartlink.broadcasting.events import BroadcastEvent

__all__ = ["Change", "ChangingModel", "ModelChanged"]

Change = Literal["created", "updated", "deleted"]


class ChangingModel:
    """The base of the mixins. `broadcast_key` is their ORM's."""

    broadcast_fields: ClassVar[Sequence[str]] = ()
    broadcast_changes: ClassVar[Sequence[Change]] = ("created", "updated", "deleted")
    broadcast_namespace: ClassVar[str] = "App.Models."
    broadcast_delivery: ClassVar[Delivery] = Delivery.DURABLE
    broadcast_queue: ClassVar[str] = DEFAULT_QUEUE
    broadcast_connections: ClassVar[Sequence[str]] = ()
    broadcast_to_others: ClassVar[bool] = False

    def broadcast_on(self, change: Change) -> Channel | Sequence[Channel]:
        """Return the channels of a change, by default the model's own channel; an empty sequence sends nothing."""
        del change
        return PrivateChannel(f"{self.broadcast_namespace}{type(self).__name__}.{self.broadcast_key()}")

    def broadcast_as(self, change: Change) -> str | enum.Enum | None:
        """Return the event's name; None, the default, means the class name and the change: `OrderUpdated`."""
        del change
        return None

    def broadcast_with(self, change: Change) -> Mapping[str, object]:
        """Return the payload, by default `{"model": {field: value}}`; for a deleted model, the key only."""
        if change == "deleted":
            return {"model": self.broadcast_key()}
        return {"model": {name: getattr(self, name) for name in self.broadcast_fields}}

    def broadcast_key(self) -> object:
        """Return the primary key. Raises InvalidChannel for a composite one."""
        raise NotImplementedError

    @classmethod
    def broadcasts_nothing_named(cls) -> bool:
        """Return whether the class names neither fields nor a payload, so that there is nothing to send."""
        return not cls.broadcast_fields and cls.broadcast_with is ChangingModel.broadcast_with


@dataclass(frozen=True, slots=True)
class ModelChanged(BroadcastEvent):
    """The event of a model's change; its properties come from the model."""

    model: ChangingModel
    change: Change
    delivery: Delivery  # type: ignore[misc]
    broadcast_queue: str  # type: ignore[misc]
    broadcast_connections: Sequence[str]  # type: ignore[misc]

    @classmethod
    def of(cls, model: ChangingModel, change: Change) -> ModelChanged:
        """Return the event for a change, with the delivery options of the model's class."""
        return cls(model, change, model.broadcast_delivery, model.broadcast_queue, model.broadcast_connections)

    def broadcast_on(self) -> Channel | Sequence[Channel]:
        return self.model.broadcast_on(self.change)

    def broadcast_as(self) -> str | enum.Enum:
        return self.model.broadcast_as(self.change) or f"{type(self.model).__name__}{self.change.capitalize()}"

    def broadcast_with(self) -> Mapping[str, object]:
        return self.model.broadcast_with(self.change)
