"""Indexes for the order of lists of instances."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SETTLED_AT = "CASE WHEN state IN ('completed', 'failed', 'cancelled') THEN updated_at END"


def upgrade() -> None:
    """Add the column and the indexes."""
    op.add_column(
        "instances",
        sa.Column("settled_at", sa.DateTime(timezone=True), sa.Computed(_SETTLED_AT, persisted=True), nullable=True),
    )
    op.create_index(
        "instances_settled_idx",
        "instances",
        ["tenant_id", sa.text("settled_at DESC"), sa.text("id DESC")],
        unique=False,
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )
    op.create_index(
        "instances_open_idx", "instances", ["tenant_id"], unique=False, postgresql_where=sa.text("settled_at IS NULL")
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_index("instances_open_idx", table_name="instances")
    op.drop_index("instances_settled_idx", table_name="instances")
    op.drop_column("instances", "settled_at")
