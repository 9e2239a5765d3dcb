"""What is to be told to addresses outside, what came of it, and counts that many processes add to."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "webhook_outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("delivery_id", sa.Uuid(), nullable=True),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("token", sa.Uuid(), nullable=True),
        sa.Column("claimed_at", moment, nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_outbox_pkey")),
    )
    waits = sa.text("status <> 'parked'")
    op.create_index(op.f("webhook_outbox_due_idx"), "webhook_outbox", ["url", "due_at"], postgresql_where=waits)
    op.create_index(
        op.f("webhook_outbox_order_idx"), "webhook_outbox", ["instance_id", "url", "number"], postgresql_where=waits
    )
    op.create_index(op.f("webhook_outbox_number_idx"), "webhook_outbox", ["number"])
    op.create_table(
        "webhook_attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("attempt_number", sa.Integer(), nullable=False),
        sa.Column("attempted_at", moment, nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error_class", sa.Text(), nullable=True),
        sa.Column("error_excerpt", sa.Text(), nullable=True),
        sa.Column("signed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_attempts_pkey")),
    )
    op.create_index(op.f("webhook_attempts_delivery_id_idx"), "webhook_attempts", ["delivery_id"])
    op.create_index(op.f("webhook_attempts_attempted_at_idx"), "webhook_attempts", ["attempted_at"])
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("counters_pkey")),
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_table("counters")
    op.drop_table("webhook_attempts")
    op.drop_table("webhook_outbox")
