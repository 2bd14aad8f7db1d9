"""Django models that broadcast their own changes, as in Laravel, for Echo's `useEchoModel`.

class Order(BroadcastsChanges, models.Model):
    broadcast_fields = ("id", "status")


broadcasting.announce_model_changes()

An order's `created`, `updated` and `deleted` go out as `OrderCreated` and so on, on `private-App.Models.Order.{id}`,
with `{"model": {"id", "status"}}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models.signals import post_delete, post_save

from smartlink.broadcasting.changes import Change, ChangingModel
from smartlink.broadcasting.errors import BroadcastConfigError, InvalidChannel

__all__ = ["BroadcastsChanges", "follow_changes"]


class BroadcastsChanges(ChangingModel):
    """Mixin for Django models that broadcast their changes.

    `broadcast_fields` are the attributes to send; there is no default, so that nothing leaks, and a system check
    (`smartlink_outbox.E001`) reports a model without. Changes that send no signals (`update`, `bulk_create`, plain
    SQL) are not broadcast, nor are fixtures.
    """

    def broadcast_key(self) -> object:
        model: Any = self
        key: object = model.pk
        if isinstance(key, tuple):
            raise InvalidChannel(f"{type(self).__name__} has a composite key; define broadcast_on()")
        return key


def follow_changes(announce: Callable[[ChangingModel, Change], None], using: str, owner: object) -> None:
    """Call `announce` with each change of a model with `BroadcastsChanges`, in the transaction that makes it.

    For one `owner` once, however often it is called. A model saved in another database than `using` raises
    BroadcastConfigError, since nothing could be recorded with it.
    """

    def changed(instance: object, change: Change, database: str) -> None:
        if not isinstance(instance, BroadcastsChanges) or change not in instance.broadcast_changes:
            return
        if database != using:
            raise BroadcastConfigError(
                f"{type(instance).__name__} was saved in the database {database!r}, but events are recorded in "
                f"{using!r}: DjangoBroadcasting(using={database!r})"
            )
        announce(instance, change)

    def saved(instance: object, created: bool, raw: bool, using: str, **_: object) -> None:
        if not raw:
            changed(instance, "created" if created else "updated", using)

    def deleted(instance: object, using: str, **_: object) -> None:
        changed(instance, "deleted", using)

    for signal, receiver in ((post_save, saved), (post_delete, deleted)):
        signal.connect(receiver, weak=False, dispatch_uid=f"smartlink {id(owner)}")
