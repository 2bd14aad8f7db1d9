"""Whose connections the realtime server is still to end: kept until it has heard of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "connection_endings",
        sa.Column("user_id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("request", sa.String(32), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_connection_endings"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_connection_endings_user_id", ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("connection_endings")
