"""What a step has done holds for a run of its instance, whatever definition that goes over to meanwhile."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let the run take the place of the round. Of former runs nothing is asked any more: their rows keep their ids."""
    op.add_column("effects", sa.Column("run_id", sa.Uuid(), nullable=True))
    op.execute(
        "UPDATE effects e SET run_id = coalesce((SELECT CASE WHEN i.round = e.round THEN coalesce(i.run_id, i.id) END "
        "FROM instances i WHERE i.id = e.instance_id), e.id)"
    )
    op.alter_column("effects", "run_id", nullable=False)
    op.drop_constraint(op.f("effects_pkey"), "effects", type_="primary")
    op.create_primary_key(op.f("effects_pkey"), "effects", ["instance_id", "block_id", "iteration", "run_id"])
    op.drop_column("effects", "round")


def downgrade() -> None:
    """Number the runs of each step."""
    op.add_column("effects", sa.Column("round", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE effects e SET round = n.number FROM (SELECT id, row_number() OVER "
        "(PARTITION BY instance_id, block_id, iteration ORDER BY id) - 1 AS number FROM effects) AS n "
        "WHERE n.id = e.id"
    )
    op.alter_column("effects", "round", nullable=False)
    op.drop_constraint(op.f("effects_pkey"), "effects", type_="primary")
    op.create_primary_key(op.f("effects_pkey"), "effects", ["instance_id", "block_id", "iteration", "round"])
    op.drop_column("effects", "run_id")
