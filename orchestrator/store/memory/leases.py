"""Claims that stand; the twin of `orchestrator.store.leases`."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from orchestrator.core.model import Claim
from orchestrator.core.states import StepState
from orchestrator.store.memory.base import Base
from orchestrator.store.rows import claim_of


def claims_of(tx: Base, worker_id: UUID) -> list[Claim]:
    """List the claims of one worker process."""
    return [
        claim_of(o, row.step) for o, row in tx.tables.steps_in(StepState.CLAIMED) if row.step.worker_id == worker_id
    ]


def claims_of_slots(tx: Base, worker_id: UUID) -> list[tuple[int, Claim]]:
    """List the claims of one worker process with the child that holds each."""
    return [
        (row.step.slot, claim_of(owner, row.step))
        for owner, row in tx.tables.steps_in(StepState.CLAIMED)
        if row.step.worker_id == worker_id and row.step.slot is not None
    ]


def lost_claims(tx: Base, dead_after: timedelta, limit: int) -> list[Claim]:
    """List claims of worker processes that have stopped their heartbeat, or have left no row at all."""
    heard_after = tx.now() - dead_after
    alive = {i for i, worker in tx.tables.workers.items() if worker.heartbeat_at >= heard_after}
    lost = [
        (owner, row.step)
        for owner, row in tx.tables.steps_in(StepState.CLAIMED)
        if row.step.worker_id is not None and row.step.worker_id not in alive
    ]
    return [claim_of(owner, step) for owner, step in sorted(lost, key=lambda each: each[1].id)[:limit]]


def release_stale_tasks(tx: Base, stale_after: timedelta, limit: int) -> int:
    """Give tasks of silent HTTP workers back to their queue; returns how many."""
    heard_after = tx.now() - stale_after
    stale = [
        (owner, row)
        for owner, row in tx.tables.steps_in(StepState.CLAIMED)
        if row.step.worker_id is None and row.heartbeat_at is not None and row.heartbeat_at < heard_after
    ]
    stale = sorted(stale, key=lambda each: each[1].step.id)[:limit]
    for owner, row in stale:
        step = replace(row.step, state=StepState.READY, token=None, worker_id=None, worker_name=None, claimed_at=None)
        tx.journal.put(tx.tables.instances[owner].steps, step.key, replace(row, step=step, heartbeat_at=None))
    return len(stale)


def is_held_by(tx: Base, step_id: UUID, token: UUID) -> bool:
    """Tell whether a claim still stands."""
    if step_id not in tx.tables.places:
        return False
    owner, key = tx.tables.places[step_id]
    step = tx.tables.instances[owner].steps[key].step
    return step.state is StepState.CLAIMED and step.token == token


def has_committed(tx: Base, claim: Claim) -> bool:
    """Tell whether the outcome of this very claim is stored already."""
    rows = tx.tables.instances.get(claim.instance_id)
    return rows is not None and any(
        attempt.token == claim.token and attempt.outcome in {"completed", "failed"}
        for attempt in rows.attempts.values()
    )
