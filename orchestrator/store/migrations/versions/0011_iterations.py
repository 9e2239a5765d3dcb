"""How many iterations an instance has begun, for the ceiling over all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("instances", sa.Column("iterations", sa.BigInteger(), nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("instances", "iterations")
