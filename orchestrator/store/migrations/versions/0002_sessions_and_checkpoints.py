"""Sessions and checkpoints; what a decision reads of session and budget goes to the hot row, the audit section beside.

Nothing is lost: neither a session nor an audit section could be stored before, and budgets move.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, move the columns."""
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("session_key", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSON(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("sessions_pkey")),
        sa.UniqueConstraint("tenant_id", "session_key", name=op.f("sessions_tenant_id_session_key_key")),
    )
    op.create_table(
        "checkpoints",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("data", postgresql.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "id", name=op.f("checkpoints_pkey")),
    )
    op.add_column("instances", sa.Column("session_id", sa.Uuid(), nullable=True))
    op.add_column("instances", sa.Column("budget", postgresql.JSON(), nullable=True))
    for name in ("input_tokens", "output_tokens"):
        op.add_column("instances", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_index(
        "instances_session_id_idx",
        "instances",
        ["session_id"],
        unique=False,
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )
    op.execute(
        "UPDATE instances SET budget = c.budget FROM contexts c WHERE c.instance_id = id AND c.budget IS NOT NULL"
    )
    op.drop_column("contexts", "budget")
    op.drop_column("contexts", "session_id")
    op.add_column("contexts", sa.Column("audit", postgresql.JSON(), nullable=True))


def downgrade() -> None:
    """Move the columns back, drop the tables."""
    op.drop_column("contexts", "audit")
    op.add_column("contexts", sa.Column("session_id", sa.Uuid(), nullable=True))
    op.add_column("contexts", sa.Column("budget", postgresql.JSON(), nullable=True))
    op.execute(
        "UPDATE contexts SET budget = i.budget, session_id = i.session_id FROM instances i WHERE i.id = instance_id"
    )
    op.drop_index("instances_session_id_idx", table_name="instances")
    for name in ("output_tokens", "input_tokens", "budget", "session_id"):
        op.drop_column("instances", name)
    op.drop_table("checkpoints")
    op.drop_table("sessions")
