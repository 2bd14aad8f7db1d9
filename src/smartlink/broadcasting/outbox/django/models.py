"""Recorded events as a model, for reading: Django's admin shows them. The library writes the table by itself."""

from __future__ import annotations

from django.db import models

__all__ = ["RecordedEvent"]


class RecordedEvent(models.Model):  # type: ignore[misc] # Django has no types
    """A row of `recorded_events`: waiting (`pending`), `sent`, or `failed`, with the reason in `error`.

    Do not save or delete instances: order and ids are the library's.
    """

    id = models.BigAutoField(primary_key=True)
    channel = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    payload = models.TextField()
    socket_id = models.CharField(max_length=64, null=True)
    delivery = models.CharField(max_length=8)
    state = models.CharField(
        max_length=8, choices=[("pending", "pending"), ("sent", "sent"), ("failed", "failed")], default="pending"
    )
    queue = models.CharField(max_length=32)
    attempts = models.IntegerField()
    connection = models.CharField(max_length=64, null=True)
    except_user = models.CharField(max_length=200, null=True)
    receipts = models.BooleanField()
    error = models.TextField(null=True)
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = "recorded_events"

    def __str__(self) -> str:
        return f"{self.name} on {self.channel}"
