"""The Django app that brings the outbox's tables."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["OutboxConfig"]


class OutboxConfig(AppConfig):  # type: ignore[misc] # Django has no types
    """Tables without models: the worker reads them over a connection of its own."""

    name = "smartlink.broadcasting.outbox.django"
    label = "smartlink_outbox"
    verbose_name = "SmartLink outbox"
