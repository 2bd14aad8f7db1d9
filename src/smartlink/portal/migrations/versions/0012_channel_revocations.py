"""Which channels the realtime server is still to take from whom: kept until it has heard of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "channel_revocations",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("channel", sa.String(200)),
        sa.Column("user_id", BIG_ID),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_channel_revocations"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_channel_revocations_user_id", ondelete="CASCADE"),
    )
    op.create_index("ix_channel_revocations_user_id", "channel_revocations", ["user_id"])


def downgrade() -> None:
    op.drop_table("channel_revocations")
