"""Children of instances, and letters between instances."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let an instance name the block that started it, and make the table of letters."""
    op.add_column("instances", sa.Column("parent_id", sa.Uuid(), nullable=True))
    op.add_column("instances", sa.Column("parent_block_id", sa.Text(), nullable=True))
    op.add_column("instances", sa.Column("parent_iteration", postgresql.ARRAY(sa.Integer()), nullable=True))
    op.add_column("instances", sa.Column("depth", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.create_index(
        "contexts_parent_instance_id_idx",
        "contexts",
        ["parent_instance_id"],
        unique=False,
        postgresql_where=sa.text("parent_instance_id IS NOT NULL"),
    )
    op.create_table(
        "letters",
        sa.Column("recipient_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sender_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSON(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("recipient_id", "id", name=op.f("letters_pkey")),
    )
    op.create_index("letters_due_at_idx", "letters", ["due_at"], unique=False)


def downgrade() -> None:
    """Drop them."""
    op.drop_table("letters")
    op.drop_index("contexts_parent_instance_id_idx", table_name="contexts")
    for name in ("depth", "parent_iteration", "parent_block_id", "parent_id"):
        op.drop_column("instances", name)
