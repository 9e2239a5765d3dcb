"""Steps know their deadline; calls beside the flow keep their params."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("steps", sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("steps", sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("steps", sa.Column("memory", postgresql.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Drop them."""
    for column in ("memory", "deadline_at", "started_at"):
        op.drop_column("steps", column)
