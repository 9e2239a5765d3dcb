"""The registry of plugins, and events that producers outside tell."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "plugins",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("plugin_type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("config", postgresql.JSON(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("plugins_pkey")),
    )
    op.create_table(
        "correlation_events",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_name", sa.Text(), nullable=False),
        sa.Column("producer_event_id", sa.Text(), nullable=False),
        sa.Column("correlation_key", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSON(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("correlation_events_pkey")),
        sa.UniqueConstraint("id", name=op.f("correlation_events_id_key")),
        sa.UniqueConstraint(
            "tenant_id", "producer_event_id", name=op.f("correlation_events_tenant_id_producer_event_id_key")
        ),
    )
    op.add_column("workers", sa.Column("is_draining", sa.Boolean(), nullable=False, server_default=sa.text("false")))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("workers", "is_draining")
    for name in ("correlation_events", "plugins"):
        op.drop_table(name)
