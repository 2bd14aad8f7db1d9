"""Recorded events in Django's admin: what waits, was sent or has failed; failed ones are retried or forgotten."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest

from smartlink.broadcasting.envelope import Delivery, Envelope
from smartlink.broadcasting.outbox.django.models import RecordedEvent
from smartlink.broadcasting.outbox.django.record import DjangoOutbox
from smartlink.broadcasting.outbox.failed import RETRIED_AT_ONCE
from smartlink.broadcasting.outbox.tables import FAILED

__all__ = ["RecordedEventAdmin"]


@admin.register(RecordedEvent)
class RecordedEventAdmin(admin.ModelAdmin):  # type: ignore[misc] # Django has no types
    """Shows events; changes nothing but failed ones. Retrying needs the permission `change`, forgetting `delete`."""

    list_display = ("id", "name", "channel", "state", "queue", "attempts", "created_at", "sent_at")
    list_filter = ("state", "queue", "delivery")
    search_fields = ("channel", "name")
    ordering = ("-id",)
    show_full_result_count = False
    actions = ("retry", "forget")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: events are announced."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Return False: what was recorded is sent as it is."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Return False: a waiting event is not lost, and the worker deletes sent ones."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Return whether the user may view events, or do more."""
        return any(self._may(request, what) for what in ("view", "change", "delete"))

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may retry failed events."""
        return self._may(request, "change")

    def has_forget_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may delete failed events."""
        return self._may(request, "delete")

    @admin.action(description="Retry failed events, as new ones", permissions=["retry"])  # type: ignore[untyped-decorator]
    def retry(self, request: HttpRequest, queryset: Any) -> None:
        """Record the selected failed events anew, each as the last of its channel, up to 1,000 at once."""
        with transaction.atomic(using=queryset.db):
            failed = queryset.filter(state=FAILED).select_for_update().order_by("id")
            rows: list[RecordedEvent] = list(failed[:RETRIED_AT_ONCE])
            RecordedEvent.objects.using(queryset.db).filter(pk__in=[row.pk for row in rows]).delete()
            DjangoOutbox(queryset.db).record([_envelope(row) for row in rows])
        self._report(request, len(rows), "will be sent again")

    @admin.action(description="Forget failed events for good", permissions=["forget"])  # type: ignore[untyped-decorator]
    def forget(self, request: HttpRequest, queryset: Any) -> None:
        """Delete the selected failed events."""
        count, _ = queryset.filter(state=FAILED).order_by().delete()
        self._report(request, count, "forgotten")

    def _may(self, request: HttpRequest, what: str) -> bool:
        return bool(request.user.has_perm(f"{self.opts.app_label}.{what}_recordedevent"))

    def _report(self, request: HttpRequest, count: int, what: str) -> None:
        level = messages.SUCCESS if count else messages.WARNING
        said = f"{count} failed event{'' if count == 1 else 's'} {what}." if count else "None of these has failed."
        self.message_user(request, said, level)


def _envelope(row: Any) -> Envelope:
    return Envelope(
        row.channel,
        row.name,
        row.payload,
        row.socket_id,
        Delivery(row.delivery),
        row.queue,
        connection=row.connection,
        except_user=row.except_user,
        receipts=row.receipts,
    )
