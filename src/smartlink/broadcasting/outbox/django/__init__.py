"""The outbox in Django: put `smartlink.broadcasting.outbox.django` into INSTALLED_APPS and run `migrate`."""

from __future__ import annotations

from smartlink.broadcasting.outbox.django.record import DjangoOutbox

__all__ = ["DjangoOutbox"]
