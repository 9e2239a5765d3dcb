"""Instances by the moment of their end, for deleting the old ones of all tenants."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        "instances_retention_idx",
        "instances",
        ["settled_at", "id"],
        unique=False,
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("instances_retention_idx", table_name="instances")
