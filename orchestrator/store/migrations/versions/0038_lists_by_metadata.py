"""Metadata of instances from before are listed, and the index over whole objects goes."""

from collections.abc import Iterator
from typing import Any

from alembic import op
from sqlalchemy import text

from orchestrator.store.migrations import online

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

_NEXT = (
    "SELECT instance_id FROM contexts WHERE instance_id > :after AND jsonb_typeof(metadata) = 'object' "
    "ORDER BY instance_id LIMIT :count"
)
# Whoever changes an instance meanwhile finds its entries when he has its lock, or is waited for. The second statement
# of a message sees what was committed until the first one had its locks.
_LIST = (
    "SELECT FROM instances WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE; "
    "INSERT INTO metadata_entries (entry, tenant_id, minute, instance_id) "
    "SELECT metadata_entry(e.key, e.value), i.tenant_id, "
    "date_bin('1 minute', i.updated_at, '2000-01-01 00:00:00+00'), i.id "
    "FROM instances i JOIN contexts c ON c.instance_id = i.id, "
    "jsonb_each_text(CASE jsonb_typeof(c.metadata) WHEN 'object' THEN c.metadata ELSE '{}' END) AS e "
    "WHERE i.id = ANY(:ids) AND e.value IS NOT NULL ON CONFLICT DO NOTHING"
)


def upgrade() -> None:
    """List what is there, some thousand instances in each transaction, and drop the index."""
    with online.outside_of_transactions():
        for ids in _portions():
            op.get_bind().execute(text(_LIST), {"ids": ids})
        op.execute("ANALYZE metadata_entries")
    online.drop_index("contexts_metadata_idx")


def _portions() -> Iterator[list[Any]]:
    if op.get_context().as_sql:
        return
    after: Any = "00000000-0000-0000-0000-000000000000"
    while ids := list(op.get_bind().execute(text(_NEXT), {"after": after, "count": online.ROWS_AT_ONCE}).scalars()):
        yield ids
        after = ids[-1]


def downgrade() -> None:
    """Build the index again."""
    online.create_index("contexts_metadata_idx", "contexts USING gin", ["metadata jsonb_path_ops"])
