"""Blocks that were injected into the root lists of instances."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, and the count that spares instances without injections a look at it."""
    op.add_column("instances", sa.Column("injected", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_table(
        "injections",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("blocks", postgresql.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "number", name=op.f("injections_pkey")),
    )


def downgrade() -> None:
    """Forget injections."""
    op.drop_table("injections")
    op.drop_column("instances", "injected")
