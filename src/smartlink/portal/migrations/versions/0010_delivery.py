"""The column that says how surely an event arrives is called delivery."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE recorded_events RENAME COLUMN promise TO delivery")


def downgrade() -> None:
    op.execute("ALTER TABLE recorded_events RENAME COLUMN delivery TO promise")
