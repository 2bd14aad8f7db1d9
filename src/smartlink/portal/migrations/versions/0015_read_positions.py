"""How far each user has read General, and which direct messages they marked as unread again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "read_positions",
        sa.Column("user_id", BIG_ID, nullable=False),
        sa.Column("room", sa.String(40), nullable=False),
        sa.Column("last_read_id", BIG_ID, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "room", name="pk_read_positions"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_read_positions_user_id", ondelete="CASCADE"),
    )
    # Until now browsers kept it: everybody begins at the end of General.
    op.execute(
        "INSERT INTO read_positions (user_id, room, last_read_id, updated_at) SELECT id, 'general', "
        "COALESCE((SELECT max(id) FROM chat_messages WHERE recipient_id IS NULL), 0), CURRENT_TIMESTAMP FROM users"
    )


def downgrade() -> None:
    op.drop_table("read_positions")
