"""The Django app with the outbox's tables."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

__all__ = ["OutboxConfig"]


class OutboxConfig(AppConfig):  # type: ignore[misc] # Django has no types
    """An app whose tables have no models: the worker reads them over its own connection."""

    name = "smartlink.broadcasting.outbox.django"
    label = "smartlink_outbox"
    verbose_name = "SmartLink outbox"

    def ready(self) -> None:
        """Register the system checks."""
        from smartlink.broadcasting.outbox.django.checks import CHECKS

        for check, tag, is_for_deployment in CHECKS:
            register(check, tag, deploy=is_for_deployment)
