"""Whoever counts what has happened lately reads that part of the history alone.

The index of attempts is of each partition: a partitioned table could only have one that keeps writers out while it is
built. New partitions are made with theirs (`upkeep`).
"""

from alembic import op
from sqlalchemy import text

from orchestrator.store.migrations.online import create_index, drop_index

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

OPTIONS = "pages_per_range = 32, autosummarize = on"


def upgrade() -> None:
    """Build the indexes while others work."""
    create_index("transitions_created_at_idx", "transitions", ("created_at",), using="brin", options=OPTIONS)
    for partition in _partitions():
        create_index(f"{partition}_lately_idx", partition, ("ended_at",), using="brin", options=OPTIONS)


def downgrade() -> None:
    """Drop them."""
    drop_index("transitions_created_at_idx")
    for partition in _partitions():
        drop_index(f"{partition}_lately_idx")


def _partitions() -> list[str]:
    if op.get_context().as_sql:
        return []
    children = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'attempts'::regclass ORDER BY 1"
    return list(op.get_bind().execute(text(children)).scalars())
