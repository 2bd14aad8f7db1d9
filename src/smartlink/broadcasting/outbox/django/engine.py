"""An asynchronous engine on the database of Django's settings, for the worker and the commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.core.management.base import CommandError
from django.db import connections
from sqlalchemy import URL, MetaData
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.outbox.pgbouncer import engine_for
from smartlink.broadcasting.outbox.tables import OutboxTables, define_tables

__all__ = ["opened_outbox"]


@asynccontextmanager
async def opened_outbox(using: str, url: str | None) -> AsyncIterator[tuple[AsyncEngine, OutboxTables]]:
    """Open an engine on the database `using` of the settings, or on `url`, and yield it with the outbox's tables.

    Raises CommandError for an unsupported database or a missing driver.
    """
    try:
        engine = engine_for(url or _url(using))
    except (ModuleNotFoundError, ArgumentError) as error:
        raise CommandError(
            f"{error}; the worker needs an asynchronous driver: pip install asyncpg (PostgreSQL) or aiosqlite (SQLite)"
        ) from None
    try:
        yield engine, define_tables(MetaData())
    finally:
        await engine.dispose()


def _url(using: str) -> URL:
    connection = connections[using]
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return URL.create("sqlite+aiosqlite", database=str(settings["NAME"]))
    if connection.vendor == "postgresql":
        host = settings["HOST"] or ""
        is_folder = host.startswith("/")
        return URL.create(
            "postgresql+asyncpg",
            username=settings["USER"] or None,
            password=settings["PASSWORD"] or None,
            host=None if is_folder or not host else host,
            port=int(settings["PORT"]) if settings["PORT"] else None,
            database=settings["NAME"],
            # Django's own setting for poolers in transaction mode.
            query=({"host": host} if is_folder else {})
            | ({"pgbouncer": "true"} if settings.get("DISABLE_SERVER_SIDE_CURSORS") else {}),
        )
    raise CommandError(f"the outbox supports sqlite and postgresql, not {connection.vendor}")
