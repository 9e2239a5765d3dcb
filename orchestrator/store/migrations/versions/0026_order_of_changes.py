"""The transaction that an audit row was written by: the order of the change feed."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the index; rows that exist count as written before all others, without being touched."""
    op.add_column("transitions", sa.Column("xid", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.alter_column("transitions", "xid", server_default=sa.text("((pg_current_xact_id())::text)::bigint"))
    op.create_index("transitions_feed_idx", "transitions", ["tenant_id", "xid", "id"], unique=False)


def downgrade() -> None:
    """Drop them."""
    op.drop_index("transitions_feed_idx", table_name="transitions")
    op.drop_column("transitions", "xid")
