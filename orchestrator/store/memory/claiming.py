"""Claiming steps; the twin of `orchestrator.store.claiming`."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from orchestrator.carry import claimed
from orchestrator.core.model import Claim, Step
from orchestrator.core.states import StepState
from orchestrator.store.claiming import Taken, TakenTasks, Worker
from orchestrator.store.leases import HeldTask
from orchestrator.store.memory.base import Base
from orchestrator.store.memory.reading import context_and_audit, load_instances
from orchestrator.store.memory.tables import StepRow
from orchestrator.store.memory.workers import handlers_and_routes
from orchestrator.store.rows import claim_of


def _claim(tx: Base, owner: UUID, row: StepRow, worker: Worker) -> Step:
    now = tx.now()
    taken = claimed(row.step, worker, now)
    tx.journal.put(tx.tables.instances[owner].steps, taken.key, replace(row, step=taken, heartbeat_at=now))
    return taken


def claim_one(tx: Base, step_id: UUID, handlers: Sequence[str], worker: Worker) -> Claim | None:
    """Claim a certain step; None if it is no longer ready, or its handler is not among those."""
    for owner, row in tx.tables.steps_in(StepState.READY):
        if row.step.id == step_id and row.step.handler in handlers:
            return claim_of(owner, _claim(tx, owner, row, worker))
    return None


def most_urgent(tx: Base, queues: Sequence[str], handlers: Sequence[str]) -> int:
    """Give the highest priority among ready steps of some queues and handlers; -1 if there is none."""
    ready = (row.step for _, row in tx.tables.steps_in(StepState.READY))
    return max((s.priority for s in ready if s.queue in queues and s.handler in handlers), default=-1)


def claim_ready(
    tx: Base,
    queue: str,
    handlers: Sequence[str],
    worker: Worker,
    *,
    step_id: UUID | None = None,
    together: Collection[str] = (),
    readers: Collection[str] = (),
    limit: int = 1,
    alive_within: timedelta | None = None,
) -> Taken:
    """Claim ready steps of a queue and some handlers, and load their instances."""
    known = frozenset(handlers)
    ready = [each for each in tx.tables.steps_in(StepState.READY) if each[1].step.handler in known]
    found = [(owner, row) for owner, row in ready if row.step.queue == queue]
    found.sort(key=lambda each: (-each[1].step.priority, _ready_at(each[1].step)))
    named = [(owner, row) for owner, row in ready if row.step.id == step_id]
    if named and most_urgent(tx, [named[0][1].step.queue], handlers) <= named[0][1].step.priority:
        found = [*named, *(each for each in found if each[1].step.id != step_id)]
    first, more = found[:1], [each for each in found[1:] if each[1].step.handler in together]
    if first and first[0][1].step.handler in together:
        first += more[: limit - 1]
    claimed = [(owner, _claim(tx, owner, row, worker)) for owner, row in first]
    return Taken(
        steps=claimed,
        instances=load_instances(tx, [owner for owner, _ in claimed]),
        contexts={owner: context_and_audit(tx, owner) for owner, step in claimed if step.handler in readers},
        known=handlers_and_routes(tx, alive_within) if claimed and alive_within is not None else None,
    )


def claim_tasks(
    tx: Base,
    *,
    queue: str,
    is_named: bool,
    handler: str,
    tenant_id: str | None,
    takers: Sequence[str],
    rank: Sequence[int] | None = None,
) -> TakenTasks:
    """Claim tasks for workers that poll over HTTP, the oldest first. No version is pinned here, so no rank counts."""
    wanted = (queue, is_named, handler)
    found = [
        (owner, row)
        for owner, row in tx.tables.steps_in(StepState.READY)
        if (row.step.queue, row.step.is_queue_named, row.step.handler) == wanted
        and tenant_id in {None, row.step.tenant_id}
    ]
    found.sort(key=lambda each: (_ready_at(each[1].step), each[1].step.id))
    tasks = [_handed(tx, owner, row, taker) for (owner, row), taker in zip(found, takers, strict=False)]
    return TakenTasks(
        tasks=tasks,
        instances=load_instances(tx, [task.instance_id for task in tasks]),
        contexts={task.instance_id: context_and_audit(tx, task.instance_id) for task in tasks},
    )


def _handed(tx: Base, owner: UUID, row: StepRow, taker: str) -> HeldTask:
    step = _claim(tx, owner, row, Worker(id=None, name=taker))
    return HeldTask(instance_id=owner, step=step, heartbeat_at=step.claimed_at, checkpoint=None, checkpoint_seq=0)


def _ready_at(step: Step) -> datetime:
    return step.ready_at or step.entered_at
