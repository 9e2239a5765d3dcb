"""Timers whose moment has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from orchestrator.core.model import NodeKey
from orchestrator.store.session import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A timer whose moment has come."""

    instance_id: UUID
    key: NodeKey
    due_at: datetime


def due(tx: Transaction, limit: int) -> list[Due]:
    """List timers whose moment has come, the oldest first."""
    rows = tx.query(
        "SELECT instance_id, block_id, iteration, due_at FROM timers WHERE due_at <= statement_timestamp() "
        "ORDER BY due_at LIMIT %s",
        (limit,),
    )
    return [Due(instance_id=row[0], key=NodeKey(row[1], tuple(row[2])), due_at=row[3]) for row in rows]


def drop(tx: Transaction, timers: Sequence[Due]) -> None:
    """Remove timers that no longer mean anything, unless they were set anew since they were seen.

    One that somebody is writing at this moment is passed over, and seen again if it stays.
    """
    if timers:
        rows = [(due.instance_id, due.key.block_id, list(due.key.iteration), due.due_at) for due in timers]
        keys = tx.values("(%s::uuid, %s::text, %s::int[], %s::timestamptz)", rows)
        tx.execute(
            "WITH spent AS MATERIALIZED (SELECT instance_id, block_id, iteration FROM timers "
            f"WHERE (instance_id, block_id, iteration, due_at) IN (VALUES {keys}) "
            "ORDER BY instance_id, block_id, iteration FOR UPDATE SKIP LOCKED) "
            "DELETE FROM timers t USING spent s "
            "WHERE t.instance_id = s.instance_id AND t.block_id = s.block_id AND t.iteration = s.iteration"
        )


def postpone(tx: Transaction, due: Due, by: timedelta) -> None:
    """Look at a timer again later, unless it was set anew since it was seen."""
    tx.execute(
        "UPDATE timers SET due_at = clock_timestamp() + %s "
        "WHERE instance_id = %s AND block_id = %s AND iteration = %s::int[] AND due_at = %s",
        (by, due.instance_id, due.key.block_id, list(due.key.iteration), due.due_at),
    )


def next_due(tx: Transaction) -> timedelta | None:
    """Say how long until the next timer is due; None if there is none."""
    rows = tx.query("SELECT min(due_at) - clock_timestamp() FROM timers")
    return rows[0][0] if rows else None
