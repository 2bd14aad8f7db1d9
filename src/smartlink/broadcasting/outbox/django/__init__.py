"""The outbox for Django: add `smartlink.broadcasting.outbox.django` to INSTALLED_APPS and run `migrate`."""

from __future__ import annotations

from smartlink.broadcasting.outbox.django.record import DjangoOutbox

__all__ = ["DjangoOutbox"]
