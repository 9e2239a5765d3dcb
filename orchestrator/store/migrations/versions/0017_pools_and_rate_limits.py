"""Resource pools, and limits by key."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "resource_pools",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("round_robin_index", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("resource_pools_pkey")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("resource_pools_tenant_id_name_key")),
    )
    op.create_table(
        "pool_resources",
        sa.Column("pool_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("resource_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("daily_cap", sa.Integer(), nullable=False),
        sa.Column("daily_usage", sa.Integer(), nullable=False),
        sa.Column("daily_usage_date", sa.Date(), nullable=True),
        sa.Column("warmup_start", sa.Date(), nullable=True),
        sa.Column("warmup_days", sa.Integer(), nullable=False),
        sa.Column("warmup_start_cap", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("pool_id", "id", name=op.f("pool_resources_pkey")),
        sa.UniqueConstraint("id", name=op.f("pool_resources_id_key")),
    )
    op.create_table(
        "rate_limits",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("resource_key", sa.Text(), nullable=False),
        sa.Column("max_count", sa.Integer(), nullable=False),
        sa.Column("window_seconds", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "resource_key", name=op.f("rate_limits_pkey")),
    )


def downgrade() -> None:
    """Drop them."""
    for name in ("rate_limits", "pool_resources", "resource_pools"):
        op.drop_table(name)
