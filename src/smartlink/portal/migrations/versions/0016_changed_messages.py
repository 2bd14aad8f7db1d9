"""Messages that were edited or deleted, and their earlier texts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("chat_messages", sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("chat_messages", sa.Column("edited_at", sa.DateTime(timezone=True)))
    op.add_column("chat_messages", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.create_table(
        "message_versions",
        sa.Column("message_id", BIG_ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("message_id", "version", name="pk_message_versions"),
        sa.ForeignKeyConstraint(
            ["message_id"], ["chat_messages.id"], name="fk_message_versions_message_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    # A version that knows no deleted messages would show them as empty ones.
    op.execute("DELETE FROM chat_messages WHERE deleted_at IS NOT NULL")
    op.drop_table("message_versions")
    op.drop_column("chat_messages", "deleted_at")
    op.drop_column("chat_messages", "edited_at")
    op.drop_column("chat_messages", "version")
