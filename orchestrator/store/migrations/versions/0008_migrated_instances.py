"""What an open step still needs of a definition that its instance has left."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the former block to open steps, and their number to instances."""
    op.add_column("instances", sa.Column("leaving", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("steps", sa.Column("former", postgresql.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Forget them."""
    op.drop_column("steps", "former")
    op.drop_column("instances", "leaving")
