"""Who had claimed an execution that has ended, under which name and with which epoch."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("attempts", sa.Column("worker_name", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("claim_epoch", sa.Integer(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("attempts", "claim_epoch")
    op.drop_column("attempts", "worker_name")
