"""Recorded events keep the trace they belong to."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations


def _up(_apps: Any, schema_editor: Any) -> None:
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        columns = {column.name for column in connection.introspection.get_table_description(cursor, "recorded_events")}
    if "trace" not in columns:  # tables that 0001 creates now have it
        schema_editor.execute("ALTER TABLE recorded_events ADD COLUMN trace VARCHAR(55)", params=None)


class Migration(migrations.Migration):  # type: ignore[misc] # Django has no types
    """Adds the column `trace` to `recorded_events`."""

    dependencies: ClassVar[list[tuple[str, str]]] = [("smartlink_outbox", "0003_receipts")]
    operations: ClassVar[list[Any]] = [migrations.RunPython(_up, migrations.RunPython.noop)]
