"""The key under which a step's output is cached, on the open step and in its history."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for table in ("steps", "attempts"):
        op.add_column(table, sa.Column("cache_key", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    for table in ("attempts", "steps"):
        op.drop_column(table, "cache_key")
