"""Room for a second secret beside that of a trigger and of a push queue, while one takes the place of the other."""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make room."""
    op.add_column("triggers", sa.Column("previous_secret", sa.Text(), nullable=True))
    op.add_column("triggers", sa.Column("previous_secret_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("dispatch_configs", sa.Column("second_secret", sa.Text(), nullable=True))


def downgrade() -> None:
    """Forget them: what is signed with the one that goes is refused from now on."""
    op.drop_column("dispatch_configs", "second_secret")
    op.drop_column("triggers", "previous_secret_until")
    op.drop_column("triggers", "previous_secret")
