"""Checkpoints: snapshots that people and handlers keep beside an instance (contract, api §10.6)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.core.changes import CheckpointSaved
from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction

Row = tuple[UUID, Any, datetime]

_NEWEST_FIRST = "ORDER BY created_at DESC, id DESC"
_PRUNE = (
    "DELETE FROM checkpoints WHERE instance_id = %s AND id IN "
    f"(SELECT id FROM checkpoints WHERE instance_id = %s {_NEWEST_FIRST} OFFSET %s FOR UPDATE SKIP LOCKED)"
)
"""Passes over those that another one prunes at this moment; both go."""


def statements(tx: Transaction, saved: Sequence[tuple[UUID, CheckpointSaved]]) -> list[str]:
    """Give the SQL that stores checkpoints that steps have saved, and prunes as each of them says."""
    written = []
    for owner, change in saved:
        row = tx.values("(%s, %s, %s, %s)", [(owner, change.id, private(change.data), change.created_at)])
        written.append(f"INSERT INTO checkpoints (instance_id, id, data, created_at) VALUES {row}")
        if change.keep is not None:
            written.append(tx.values(_PRUNE, [(owner, owner, change.keep)]))
    return written


def insert(tx: Transaction, instance_id: UUID, checkpoint_id: UUID, data: Any) -> None:
    """Store a checkpoint."""
    tx.execute(
        "INSERT INTO checkpoints (instance_id, id, data, created_at) VALUES (%s, %s, %s, clock_timestamp())",
        (instance_id, checkpoint_id, private(data)),
    )


def newest(tx: Transaction, instance_id: UUID, limit: int) -> list[Row]:
    """Read checkpoints, the newest first.

    Returns:
        Rows of id, data, created_at.
    """
    rows = tx.query(
        f"SELECT id, data, created_at FROM checkpoints WHERE instance_id = %s {_NEWEST_FIRST} LIMIT %s",
        (instance_id, limit),
    )
    return [(row[0], row[1], row[2]) for row in rows]


def prune(tx: Transaction, instance_id: UUID, keep: int) -> int:
    """Delete all checkpoints but the newest `keep`; returns how many that were."""
    return tx.execute(_PRUNE, (instance_id, instance_id, keep))
