"""Instances with their contexts under the name and in the shape that tools of the wire format read.

A later migration that changes the type of a column shown here drops the view first and makes it again.
"""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Show each instance with its context as it is stored, sealed or plain."""
    op.execute(
        "CREATE VIEW task_instances AS SELECT i.id, i.tenant_id, i.namespace, i.sequence_id, i.state, "
        "jsonb_build_object('data', c.data, 'config', c.config, 'audit', coalesce(c.audit, '[]')) AS context, "
        "c.metadata, c.idempotency_key, i.created_at, i.updated_at "
        "FROM instances i JOIN contexts c ON c.instance_id = i.id"
    )


def downgrade() -> None:
    """Drop the view."""
    op.execute("DROP VIEW task_instances")
