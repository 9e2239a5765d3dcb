"""Nonces of signed fires."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "nonces",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("slug", "nonce", name=op.f("nonces_pkey")),
    )
    op.create_index(op.f("nonces_used_at_idx"), "nonces", ["used_at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("nonces")
