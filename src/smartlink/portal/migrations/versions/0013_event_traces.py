"""Recorded events keep the trace they belong to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("recorded_events", sa.Column("trace", sa.String(55)))


def downgrade() -> None:
    op.drop_column("recorded_events", "trace")
