"""Lists of instances from indexes in their order, state by state."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

_LISTED_AT = (
    "CASE WHEN state IN ('completed', 'failed', 'cancelled') THEN updated_at "
    "ELSE date_bin('5 seconds', updated_at, '2000-01-01 00:00:00+00') END"
)


def upgrade() -> None:
    """Add the column, which writes the table anew, and change the indexes."""
    op.add_column(
        "instances",
        sa.Column("listed_at", sa.DateTime(timezone=True), sa.Computed(_LISTED_AT, persisted=True), nullable=True),
    )
    op.create_index("instances_of_tenant_idx", "instances", ["tenant_id", "state", "listed_at"], unique=False)
    op.create_index("instances_of_sequence_idx", "instances", ["sequence_id", "state", "listed_at"], unique=False)
    op.create_index("instances_listed_idx", "instances", ["state", "listed_at"], unique=False)
    op.drop_index("instances_settled_idx", table_name="instances")
    op.drop_index("instances_open_idx", table_name="instances")
    op.drop_index("instances_sequence_id_idx", table_name="instances")


def downgrade() -> None:
    """Put the former indexes back."""
    op.create_index("instances_sequence_id_idx", "instances", ["sequence_id"], unique=False)
    op.create_index(
        "instances_open_idx", "instances", ["tenant_id"], unique=False, postgresql_where=sa.text("settled_at IS NULL")
    )
    op.create_index(
        "instances_settled_idx",
        "instances",
        ["tenant_id", sa.text("settled_at DESC"), sa.text("id DESC")],
        unique=False,
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )
    op.drop_index("instances_listed_idx", table_name="instances")
    op.drop_index("instances_of_sequence_idx", table_name="instances")
    op.drop_index("instances_of_tenant_idx", table_name="instances")
    op.drop_column("instances", "listed_at")
