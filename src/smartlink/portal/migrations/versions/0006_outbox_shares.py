"""The outbox is shared out among workers: queues, parts, strikes, and who works."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    # Neither old leases nor old batches mean anything to the workers that come.
    op.execute("DELETE FROM outbox_lease")
    op.drop_index("ix_recorded_events_pending", "recorded_events")
    op.drop_column("recorded_events", "batch")
    op.add_column("recorded_events", sa.Column("queue", sa.String(32), nullable=False, server_default="default"))
    op.add_column("recorded_events", sa.Column("part", sa.SmallInteger, nullable=False, server_default="0"))
    op.add_column("recorded_events", sa.Column("strikes", sa.Integer, nullable=False, server_default="0"))
    op.add_column("recorded_events", sa.Column("connection", sa.String(64)))
    op.add_column("recorded_events", sa.Column("except_user", sa.String(200)))
    _give_parts()
    _index("ix_recorded_events_waiting", ["queue", "id"])
    op.create_table(
        "outbox_workers",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("queues", sa.Text, nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("seen_at", sa.Float(53), nullable=False),
        sa.Column("sent", BIG_ID, nullable=False, server_default="0"),
        sa.Column("failed", BIG_ID, nullable=False, server_default="0"),
    )


def downgrade() -> None:
    op.drop_table("outbox_workers")
    op.execute("DELETE FROM outbox_lease")
    op.drop_index("ix_recorded_events_waiting", "recorded_events")
    for name in ("except_user", "connection", "strikes", "part", "queue"):
        op.drop_column("recorded_events", name)
    op.add_column("recorded_events", sa.Column("batch", BIG_ID))
    _index("ix_recorded_events_pending", ["id"])


def _index(name: str, columns: list[str]) -> None:
    where = sa.text("state = 'pending'")
    op.create_index(name, "recorded_events", columns, sqlite_where=where, postgresql_where=where)


def _give_parts() -> None:
    """What waits or may be sent again belongs to its channel's part."""
    connection = op.get_bind()
    events = sa.table("recorded_events", sa.column("channel"), sa.column("state"), sa.column("part"))
    unsent = sa.select(events.c.channel).where(events.c.state != "sent").distinct()
    for channel in connection.execute(unsent).scalars().all():
        digest = hashlib.blake2b(channel.encode(), digest_size=8, person=b"smartlink-outbox").digest()
        connection.execute(
            sa.update(events).where(events.c.channel == channel, events.c.state != "sent").values(part=digest[-1] % 16)
        )
