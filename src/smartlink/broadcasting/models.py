"""SQLAlchemy models that broadcast their own changes, as in Laravel, for Echo's `useEchoModel`.

class Order(BroadcastsChanges, Base):
    __tablename__ = "orders"
    broadcast_fields = ("id", "status")

An order's `created`, `updated` and `deleted` go out as `OrderCreated` and so on, on `private-App.Models.Order.{id}`,
with `{"model": {"id", "status"}}`. Attach `SessionBroadcasts` to the sessions that write them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect

from smartlink.broadcasting.changes import ChangingModel, ModelChanged
from smartlink.broadcasting.errors import InvalidChannel

__all__ = ["BroadcastsChanges", "ModelChanged"]


class BroadcastsChanges(ChangingModel):
    """Mixin for SQLAlchemy models that broadcast their changes.

    `broadcast_fields` are the attributes to send; there is no default, so that nothing leaks. Changes that bypass the
    session (bulk updates, plain SQL) are not broadcast. Raises TypeError for a model with neither `broadcast_fields`
    nor `broadcast_with`.
    """

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        is_table = "__tablename__" in cls.__dict__ or "__table__" in cls.__dict__
        if is_table and cls.broadcasts_nothing_named():
            raise TypeError(
                f'{cls.__name__} broadcasts its changes: name the attributes to send, broadcast_fields = ("id", ...)'
            )

    def broadcast_key(self) -> object:
        state: Any = inspect(self)
        key = state.identity or state.mapper.primary_key_from_instance(self)
        if len(key) != 1:
            raise InvalidChannel(
                f"{type(self).__name__} has a composite key of {len(key)} columns; define broadcast_on()"
            )
        return key[0]
