"""Cron schedules and their runs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def _moment(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "schedules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("sequence_id", sa.Uuid(), nullable=False),
        sa.Column("cron_expr", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("metadata", postgresql.JSON(), nullable=True),
        sa.Column("overlap_policy", sa.Text(), nullable=False),
        sa.Column("skipped_fires", sa.BigInteger(), server_default="0", nullable=False),
        _moment("last_skipped_at"),
        _moment("last_triggered_at"),
        _moment("next_fire_at"),
        _moment("due_at"),
        _moment("created_at", nullable=False),
        _moment("updated_at", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("schedules_pkey")),
    )
    op.create_index("schedules_tenant_id_idx", "schedules", ["tenant_id", "id"])
    op.create_index("schedules_sequence_id_idx", "schedules", ["sequence_id"])
    op.create_index("schedules_due_at_idx", "schedules", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_table(
        "schedule_runs",
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        _moment("fire_time", nullable=False),
        sa.PrimaryKeyConstraint("schedule_id", "instance_id", name=op.f("schedule_runs_pkey")),
    )
    op.create_index("schedule_runs_instance_id_idx", "schedule_runs", ["instance_id"])


def downgrade() -> None:
    """Drop them."""
    for name in ("schedule_runs", "schedules"):
        op.drop_table(name)
