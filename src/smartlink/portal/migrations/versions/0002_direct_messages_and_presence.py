"""Direct messages, whether they were read, and who is online."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)
GENERAL = sa.text("recipient_id IS NULL")
UNREAD = sa.text("is_read = false")


@contextmanager
def _ids_never_used_again() -> Iterator[None]:
    """SQLite alters a table by copying it, and a copy knows only the ids it holds: keep how far they had come."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        yield
        return
    last = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'chat_messages'"))
    yield
    if last is not None:
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = 'chat_messages'"))
        connection.execute(
            sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES ('chat_messages', :last)"), {"last": last}
        )


def upgrade() -> None:
    with (
        _ids_never_used_again(),
        op.batch_alter_table("chat_messages", table_kwargs={"sqlite_autoincrement": True}) as table,
    ):
        table.add_column(sa.Column("recipient_id", BIG_ID))
        table.add_column(sa.Column("is_read", sa.Boolean, nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("read_at", TIME))
        table.create_foreign_key("fk_chat_messages_recipient_id", "users", ["recipient_id"], ["id"], ondelete="CASCADE")
    op.create_index(
        "ix_chat_messages_general",
        "chat_messages",
        ["recipient_id", "id"],
        sqlite_where=GENERAL,
        postgresql_where=GENERAL,
    )
    op.create_index("ix_chat_messages_sent", "chat_messages", ["user_id", "recipient_id", "id"])
    op.create_index("ix_chat_messages_received", "chat_messages", ["recipient_id", "user_id", "id"])
    op.create_index(
        "ix_chat_messages_unread",
        "chat_messages",
        ["recipient_id", "user_id"],
        sqlite_where=UNREAD,
        postgresql_where=UNREAD,
    )
    op.create_table(
        "user_presence",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("user_id", BIG_ID, nullable=False),
        sa.Column("is_online", sa.Boolean, nullable=False),
        sa.Column("last_seen", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_user_presence"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_user_presence_user_id", ondelete="CASCADE"),
        sa.UniqueConstraint("user_id", name="uq_user_presence_user_id"),
    )
    op.create_index("ix_user_presence_online", "user_presence", ["is_online", "last_seen"])


def downgrade() -> None:
    op.drop_table("user_presence")
    # Without recipient_id a direct message would look like one to everybody: they go first.
    op.execute("DELETE FROM chat_messages WHERE recipient_id IS NOT NULL")
    for name in ("unread", "received", "sent", "general"):
        op.drop_index(f"ix_chat_messages_{name}", "chat_messages")
    with (
        _ids_never_used_again(),
        op.batch_alter_table("chat_messages", table_kwargs={"sqlite_autoincrement": True}) as table,
    ):
        table.drop_constraint("fk_chat_messages_recipient_id", type_="foreignkey")
        table.drop_column("read_at")
        table.drop_column("is_read")
        table.drop_column("recipient_id")
