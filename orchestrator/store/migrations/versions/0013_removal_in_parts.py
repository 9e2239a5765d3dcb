"""The instances of a deleted sequence are removed in parts, and by instance also where keys are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Note what is still to be removed; find keys by their instance."""
    op.add_column(
        "deleted_sequences", sa.Column("has_instances", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.create_index(
        op.f("deleted_sequences_has_instances_idx"),
        "deleted_sequences",
        ["id"],
        postgresql_where=sa.text("has_instances"),
    )
    for table in ("idempotency_keys", "emission_keys"):
        op.create_index(op.f(f"{table}_instance_id_idx"), table, ["instance_id"])


def downgrade() -> None:
    """Forget it."""
    for table in ("emission_keys", "idempotency_keys"):
        op.drop_index(op.f(f"{table}_instance_id_idx"), table_name=table)
    op.drop_index(op.f("deleted_sequences_has_instances_idx"), table_name="deleted_sequences")
    op.drop_column("deleted_sequences", "has_instances")
