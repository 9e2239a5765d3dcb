"""What ids of deleted definitions have stood for."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "deleted_sequences",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("deleted_sequences_pkey")),
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_table("deleted_sequences")
