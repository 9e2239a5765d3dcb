"""Deleting a version of a sequence, and the ended instances that are bound to it."""

from typing import Final
from uuid import UUID

from orchestrator.store.session import Transaction
from orchestrator.store.tables import metadata

_AT_ONCE: Final = 500
_OF_INSTANCES: Final = tuple(table.name for table in metadata.sorted_tables if "instance_id" in table.columns)
"""Every table whose rows belong to an instance."""


def lock_instances(tx: Transaction, sequence_id: UUID) -> list[tuple[UUID, str]]:
    """Hold all instances of a version until the transaction ends, in ascending order of id; gives their states."""
    rows = tx.query("SELECT id, state FROM instances WHERE sequence_id = %s ORDER BY id FOR UPDATE", (sequence_id,))
    return [(row[0], row[1]) for row in rows]


def remove_instances(tx: Transaction, ids: list[UUID]) -> None:
    """Delete instances and everything of them. The caller holds their locks."""
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        for table in _OF_INSTANCES:
            tx.execute(f"DELETE FROM {table} WHERE instance_id = ANY(%s::uuid[])", (part,))
        tx.execute("DELETE FROM instances WHERE id = ANY(%s::uuid[])", (part,))


def remove_sequence(tx: Transaction, sequence_id: UUID) -> None:
    """Delete a version, and remember what its id has stood for: processes may still have it compiled."""
    tx.execute(
        "INSERT INTO deleted_sequences (id, content_hash) SELECT id, content_hash FROM sequences WHERE id = %s "
        "ON CONFLICT (id) DO UPDATE SET content_hash = EXCLUDED.content_hash",
        (sequence_id,),
    )
    tx.execute("DELETE FROM sequences WHERE id = %s", (sequence_id,))


def has_stood_for_another(tx: Transaction, sequence_id: UUID, content_hash: str) -> bool:
    """Tell whether an id was given to other content before, which has been deleted."""
    rows = tx.query("SELECT 1 FROM deleted_sequences WHERE id = %s AND content_hash <> %s", (sequence_id, content_hash))
    return bool(rows)
