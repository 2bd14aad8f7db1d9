"""Creates the tables with Django's schema editor, by the statements that SQLAlchemy would send."""

from __future__ import annotations

from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.broadcasting.outbox.tables import define_tables

__all__ = ["create_tables", "drop_tables"]


def create_tables(schema_editor: Any) -> None:
    """Create the tables and their indexes. Raises BroadcastConfigError for an unsupported database."""
    dialect = _dialect(schema_editor)
    for table in _metadata().sorted_tables:
        schema_editor.execute(str(CreateTable(table).compile(dialect=dialect)), params=None)
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            schema_editor.execute(str(CreateIndex(index).compile(dialect=dialect)), params=None)


def drop_tables(schema_editor: Any) -> None:
    """Drop the tables, including waiting events."""
    dialect = _dialect(schema_editor)
    for table in reversed(_metadata().sorted_tables):
        schema_editor.execute(str(DropTable(table).compile(dialect=dialect)), params=None)


def _metadata() -> MetaData:
    metadata = MetaData()
    define_tables(metadata)
    return metadata


def _dialect(schema_editor: Any) -> Dialect:
    vendor = schema_editor.connection.vendor
    if vendor == "postgresql":
        return postgresql.dialect()  # type: ignore[no-untyped-call] # untyped upstream
    if vendor == "sqlite":
        return sqlite.dialect()
    raise BroadcastConfigError(f"the outbox supports sqlite and postgresql, not {vendor}")
