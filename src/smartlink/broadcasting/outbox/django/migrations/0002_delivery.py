"""The column that says how surely an event arrives is called delivery."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations


def _up(_apps: Any, schema_editor: Any) -> None:
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        columns = {column.name for column in connection.introspection.get_table_description(cursor, "recorded_events")}
    if "promise" in columns:  # tables that 0001 creates now have the new name
        schema_editor.execute("ALTER TABLE recorded_events RENAME COLUMN promise TO delivery", params=None)


class Migration(migrations.Migration):  # type: ignore[misc] # Django has no types
    """Renames the column `promise` of `recorded_events`."""

    dependencies: ClassVar[list[tuple[str, str]]] = [("smartlink_outbox", "0001_outbox")]
    operations: ClassVar[list[Any]] = [migrations.RunPython(_up, migrations.RunPython.noop)]
