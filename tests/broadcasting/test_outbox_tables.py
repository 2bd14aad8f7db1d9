"""The outbox's tables in databases of applications: made by their migrations, in schemas of theirs."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import MetaData, create_engine, text

from broadcasting.outbox_database import OutboxDatabase, envelope
from smartlink.broadcasting.outbox import FailedEvents, Outbox, Relay, define_tables, read_status
from smartlink.broadcasting.testing import FakeDriver


def test_alembic_writes_a_migration_that_needs_no_import_of_ours(tmp_path: Path) -> None:
    metadata = MetaData()
    define_tables(metadata)
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        written = render_python_code(produce_migrations(context, metadata).upgrade_ops)  # type: ignore[arg-type]
        with Operations.context(context):
            exec("\n".join(line.removeprefix("    ") for line in written.splitlines()), {"op": op, "sa": sa})

        assert compare_metadata(context, metadata) == []
    engine.dispose()


async def test_tables_may_be_in_a_schema_whatever_its_name(postgresql: OutboxDatabase) -> None:
    metadata = MetaData(schema="My shop")
    tables = define_tables(metadata)
    async with postgresql.engine.begin() as connection:
        await connection.execute(text('CREATE SCHEMA IF NOT EXISTS "My shop"'))
        await connection.run_sync(metadata.create_all)
    outbox, driver = Outbox(tables), FakeDriver()
    async with postgresql.sessions.begin() as session:
        await outbox.record(session, [envelope(1), envelope(2)])
    relay = Relay(postgresql.engine, tables, driver)

    assert await relay.run_once() == 2
    assert (await read_status(postgresql.engine, tables)).waiting == 0
    async with postgresql.sessions() as session:
        events, is_complete = await outbox.events_after(session, "private-a", 0)
        assert (len(events), is_complete, events[0].created_at.tzinfo is not None) == (2, True, True)
        assert await FailedEvents(tables).list(session) == []
    await relay.release()
    async with postgresql.engine.begin() as connection:
        await connection.execute(text('DROP SCHEMA "My shop" CASCADE'))
