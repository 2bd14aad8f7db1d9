"""What admins look at: figures over time, and a record of what admins did."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "figure_samples",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("figures", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_figure_samples"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_figure_samples_at", "figure_samples", ["at"])
    op.create_table(
        "audit_entries",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("admin_id", BIG_ID, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("target", sa.String(200), nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
        sa.ForeignKeyConstraint(["admin_id"], ["users.id"], name="fk_audit_entries_admin_id", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_entries_admin", "audit_entries", ["admin_id"])


def downgrade() -> None:
    op.drop_table("audit_entries")
    op.drop_table("figure_samples")
