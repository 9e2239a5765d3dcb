"""Circuit breakers: how the executions of each handler have ended."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "circuit_breakers",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("failure_count", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_threshold", sa.Integer(), nullable=False),
        sa.Column("cooldown_secs", sa.Integer(), nullable=False),
        sa.Column("on_open", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "handler", name=op.f("circuit_breakers_pkey")),
        postgresql_with={"fillfactor": "50"},
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("circuit_breakers")
