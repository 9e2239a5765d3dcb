"""Claims that stand: the marks that keep them alive, and those whose worker has gone.

These writes do not take the instance's lock: they change nothing that the core decides on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.model import Claim, Step
from orchestrator.store import task_events
from orchestrator.store.prepared import array_of, form
from orchestrator.store.rows import (
    STEP_COLUMNS,
    STEP_WIDTH,
    claim_of,
    step_of,
)
from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction

STEP_OF_S = ", ".join(f"s.{name.strip()}" for name in STEP_COLUMNS.split(","))
"""The columns of a step whose table is called s."""
HELD_TASK_OF_S = f"s.instance_id, s.heartbeat_at, s.checkpoint, s.checkpoint_seq, {STEP_OF_S}"
HELD_TASK_WIDTH = 4 + STEP_WIDTH


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTask:
    """A claimed step with the marks of the worker protocol."""

    instance_id: UUID
    step: Step
    heartbeat_at: datetime | None
    checkpoint: Any
    checkpoint_seq: int

    @property
    def claim(self) -> Claim:
        """The claim it stands for."""
        return claim_of(self.instance_id, self.step)


def claims_in(rows: Sequence[Sequence[Any]]) -> list[Claim]:
    """Read rows of `instance_id` and `STEP_OF_S`."""
    return [claim_of(row[0], step_of(row[1:])) for row in rows]


_HELD = form(
    "held_tasks",
    ["uuid[]"],
    f"SELECT {HELD_TASK_OF_S} FROM steps s WHERE s.id = ANY($1)",
    suits_all=True,  # by the id, whosever the task is
)


def held_tasks(tx: Transaction, step_ids: Sequence[UUID]) -> list[HeldTask]:
    """Read open steps by id; those that have ended are left out."""
    return [held_task_of(row) for row in tx.ask(_HELD, (array_of(step_ids),))]


def held_task_of(row: Sequence[Any]) -> HeldTask:
    """Read a row of `HELD_TASK_OF_S`."""
    return HeldTask(
        instance_id=row[0], heartbeat_at=row[1], checkpoint=row[2], checkpoint_seq=row[3], step=step_of(row[4:])
    )


def has_committed(tx: Transaction, claim: Claim) -> bool:
    """Tell whether the outcome of this very claim is stored already: a report whose answer was lost.

    The history also keeps claims that ended without a report; those are lost.
    """
    return bool(
        tx.query(
            "SELECT 1 FROM attempts WHERE instance_id = %s AND token = %s AND outcome IN ('completed', 'failed') "
            "LIMIT 1",
            (claim.instance_id, claim.token),
        )
    )


def is_held_by(tx: Transaction, step_id: UUID, token: UUID) -> bool:
    """Tell whether a claim still stands."""
    return bool(tx.query("SELECT 1 FROM steps WHERE id = %s AND token = %s AND state = 'claimed'", (step_id, token)))


def beat(tx: Transaction, step_id: UUID, token: UUID) -> bool:
    """Renew the lease of a claim; False if it has ended."""
    return bool(
        tx.execute(
            "UPDATE steps SET heartbeat_at = clock_timestamp() WHERE id = %s AND token = %s AND state = 'claimed'",
            (step_id, token),
        )
    )


def save_checkpoint(tx: Transaction, step_id: UUID, token: UUID, checkpoint: Any, sequence: int) -> bool:
    """Store a worker's checkpoint and raise its number; False if the claim or the number is no longer current."""
    return bool(
        tx.execute(
            "UPDATE steps SET heartbeat_at = clock_timestamp(), checkpoint = %s, checkpoint_seq = checkpoint_seq + 1 "
            "WHERE id = %s AND token = %s AND state = 'claimed' AND checkpoint_seq = %s",
            (private(checkpoint), step_id, token, sequence),
        )
    )


def release_stale_tasks(tx: Transaction, stale_after: timedelta, limit: int) -> int:
    """Give tasks of silent HTTP workers back to their queue: same id, attempt and checkpoint; returns how many.

    Tasks claimed by workers of our own are left to `lost_claims`: their heartbeat is the process's.
    """
    taken = tx.query(
        "WITH stale AS MATERIALIZED (SELECT id, worker_name, claimed_at FROM steps WHERE state = 'claimed' "
        "AND worker_id IS NULL AND heartbeat_at < clock_timestamp() - %s ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED) "
        "UPDATE steps s SET state = 'ready', token = NULL, worker_id = NULL, worker_name = NULL, claimed_at = NULL, "
        "heartbeat_at = NULL FROM stale WHERE s.id = stale.id "
        "RETURNING s.instance_id, s.id, s.claim_epoch, stale.worker_name, stale.claimed_at, clock_timestamp()",
        (stale_after, limit),
    )
    if taken:
        task_events.note_reclaimed(tx, [row[:5] for row in taken], taken[0][5])
    return len(taken)


def lost_claims(tx: Transaction, dead_after: timedelta, limit: int) -> list[Claim]:
    """List claims of worker processes that have stopped their heartbeat, or have left no row at all."""
    return claims_in(
        tx.query(
            f"SELECT s.instance_id, {STEP_OF_S} FROM steps s LEFT JOIN workers w ON w.id = s.worker_id "
            "WHERE s.state = 'claimed' AND s.worker_id IS NOT NULL "
            "AND (w.id IS NULL OR w.heartbeat_at < clock_timestamp() - %s) ORDER BY s.id LIMIT %s",
            (dead_after, limit),
        )
    )


def claims_of(tx: Transaction, worker_id: UUID) -> list[Claim]:
    """List the claims of one worker process."""
    return claims_in(
        tx.query(
            f"SELECT s.instance_id, {STEP_OF_S} FROM steps s WHERE s.worker_id = %s AND s.state = 'claimed'",
            (worker_id,),
        )
    )


def claims_of_slots(tx: Transaction, worker_id: UUID) -> list[tuple[int, Claim]]:
    """List the claims of one worker process with the child that holds each."""
    claims = tx.query(
        f"SELECT s.instance_id, {STEP_OF_S} FROM steps s WHERE s.worker_id = %s AND s.state = 'claimed'",
        (worker_id,),
    )
    return [(step.slot, claim_of(row[0], step)) for row in claims if (step := step_of(row[1:])).slot is not None]
