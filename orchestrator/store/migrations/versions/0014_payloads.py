"""Large values, stored apart from the rows that are read all the time."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "payloads",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(none_as_null=False), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", "key", name=op.f("payloads_pkey")),
    )


def downgrade() -> None:
    """Put the values back where they were."""
    op.execute(
        "UPDATE outputs o SET output = p.value, output_ref = nullif(o.output_ref, p.key) FROM payloads p "
        "WHERE p.instance_id = o.instance_id AND p.key = o.output ->> '_ref'"
    )
    op.execute(
        "UPDATE contexts c SET data = (SELECT json_object_agg(m.key, coalesce(p.value, m.value)) "
        "FROM json_each(c.data) AS m LEFT JOIN payloads p ON p.instance_id = c.instance_id "
        "AND json_typeof(m.value) = 'object' AND p.key = m.value ->> '_ref') "
        "WHERE json_typeof(c.data) = 'object' AND EXISTS "
        "(SELECT FROM payloads p WHERE p.instance_id = c.instance_id AND p.key LIKE 'data:%')"
    )
    op.drop_table("payloads")
