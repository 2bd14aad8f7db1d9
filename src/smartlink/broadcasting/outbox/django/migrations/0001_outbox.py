"""The outbox's tables, as the worker knows them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations

from smartlink.broadcasting.outbox.django.tables import create_tables, drop_tables


def _up(_apps: Any, schema_editor: Any) -> None:
    create_tables(schema_editor)


def _down(_apps: Any, schema_editor: Any) -> None:
    drop_tables(schema_editor)


class Migration(migrations.Migration):  # type: ignore[misc] # Django has no types
    """Creates `recorded_events`, `outbox_watermark`, `outbox_lease`, `outbox_workers`."""

    initial = True
    operations: ClassVar[list[Any]] = [migrations.RunPython(_up, _down)]
