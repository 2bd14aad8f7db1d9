"""When a direct message was delivered: received by a page or application of its recipient."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("chat_messages", sa.Column("delivered_at", sa.DateTime(timezone=True)))
    # What was read had been delivered.
    op.execute("UPDATE chat_messages SET delivered_at = read_at WHERE read_at IS NOT NULL")


def downgrade() -> None:
    op.drop_column("chat_messages", "delivered_at")
