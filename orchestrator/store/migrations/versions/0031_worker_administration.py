"""What workers are told, which versions of them get tasks, and rules that lead tasks to other queues."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and room for the version of a worker."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "worker_commands",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("worker_commands_pkey")),
    )
    op.create_index(op.f("worker_commands_worker_id_idx"), "worker_commands", ["worker_id", "id"])
    op.create_table(
        "version_pins",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("handler_name", sa.Text(), nullable=False),
        sa.Column("min_version", sa.Text(), nullable=False),
        sa.Column("rank", ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "handler_name", name=op.f("version_pins_pkey")),
    )
    op.create_table(
        "routing_rules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("handler_name", sa.Text(), nullable=False),
        sa.Column("match_queue", sa.Text(), nullable=True),
        sa.Column("queue_override", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("routing_rules_pkey")),
    )
    op.add_column("workers", sa.Column("version", sa.Text(), nullable=True))


def downgrade() -> None:
    """Forget them."""
    op.drop_column("workers", "version")
    op.drop_table("routing_rules")
    op.drop_table("version_pins")
    op.drop_table("worker_commands")
