"""Hints: which ready steps wait for one, and which have one out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from orchestrator.store.session import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A ready step that waits for a hint."""

    step_id: UUID
    queue: str
    handler: str
    tenant_id: str
    priority: int
    attempt: int
    hints: int


def heads(tx: Transaction, handlers: Sequence[str], again_after: timedelta, limit: int) -> list[Head]:
    """List ready steps of known handlers that have no hint out, or whose hint is older than `again_after`.

    At most `limit` for each queue, in claiming order.
    """
    rows = tx.query(
        "SELECT h.id, q.queue, h.handler, h.tenant_id, h.priority, h.attempt, h.hints FROM "
        "(SELECT DISTINCT queue FROM steps WHERE state = 'ready') AS q CROSS JOIN LATERAL ("
        "SELECT id, handler, tenant_id, priority, attempt, hints, ready_at FROM steps s WHERE s.state = 'ready' "
        "AND s.queue = q.queue AND s.handler = ANY(%s) "
        "AND (s.hinted_at IS NULL OR s.hinted_at < clock_timestamp() - %s) "
        "ORDER BY priority DESC, ready_at LIMIT %s) AS h",
        (list(handlers), again_after, limit),
    )
    return [
        Head(
            step_id=row[0],
            queue=row[1],
            handler=row[2],
            tenant_id=row[3],
            priority=row[4],
            attempt=row[5],
            hints=row[6],
        )
        for row in rows
    ]


def has_ready(tx: Transaction) -> bool:
    """Tell whether any step is ready, hinted or not."""
    return bool(tx.query("SELECT 1 FROM steps WHERE state = 'ready' LIMIT 1"))


def outstanding(tx: Transaction, fresh_for: timedelta) -> dict[str, int]:
    """Count, for each queue, the hints that are out and have not been answered by a claim."""
    return dict(
        tx.query(
            "SELECT queue, count(*) FROM steps WHERE state = 'ready' AND hinted_at >= clock_timestamp() - %s "
            "GROUP BY queue",
            (fresh_for,),
        )
    )


def mark(tx: Transaction, step_ids: Sequence[UUID]) -> None:
    """Note that a hint for these steps is on its way."""
    tx.execute(
        "UPDATE steps SET hinted_at = clock_timestamp(), hints = hints + 1 WHERE id IN "
        "(SELECT id FROM steps WHERE id = ANY(%s::uuid[]) AND state = 'ready' ORDER BY id FOR UPDATE SKIP LOCKED)",
        (list(step_ids),),
    )


def forget(tx: Transaction) -> int:
    """Forget all hints: the broker has lost them. Returns how many ready steps will be hinted anew.

    A step that somebody is writing at this moment is passed over: it may have ended, and else its hint gets old.
    """
    return tx.execute(
        "WITH hinted AS MATERIALIZED (SELECT id FROM steps WHERE state = 'ready' AND hinted_at IS NOT NULL "
        "ORDER BY id FOR UPDATE SKIP LOCKED) UPDATE steps s SET hinted_at = NULL FROM hinted WHERE s.id = hinted.id"
    )


def backlog(tx: Transaction) -> list[tuple[str, str, int]]:
    """Count open steps by queue and state."""
    return [
        (row[0], row[1], row[2])
        for row in tx.query("SELECT queue, state, count(*) FROM steps GROUP BY queue, state ORDER BY queue, state")
    ]
