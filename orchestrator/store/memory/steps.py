"""Claims and timers; the twin of `orchestrator.store.steps`."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from orchestrator.carry import claimed
from orchestrator.core.model import Claim, Step
from orchestrator.core.states import StepState
from orchestrator.store.memory.base import Base
from orchestrator.store.memory.reading import context_and_audit, load_instances
from orchestrator.store.memory.tables import StepRow
from orchestrator.store.memory.workers import handlers_and_routes
from orchestrator.store.rows import claim_of
from orchestrator.store.steps import Due, HeldTask, Taken, Worker
from sequences.durations import after


def _open(tx: Base, state: StepState) -> Iterator[tuple[UUID, StepRow]]:
    for owner, rows in tx.tables.instances.items():
        for row in rows.steps.values():
            if row.step.state is state:
                yield owner, row


def _claim(tx: Base, owner: UUID, row: StepRow, worker: Worker) -> Step:
    now = tx.now()
    taken = claimed(row.step, worker, now)
    tx.journal.put(tx.tables.instances[owner].steps, taken.key, replace(row, step=taken, heartbeat_at=now))
    return taken


def claim_one(tx: Base, step_id: UUID, handlers: Sequence[str], worker: Worker) -> Claim | None:
    """Claim a certain step; None if it is no longer ready, or its handler is not among those."""
    for owner, row in _open(tx, StepState.READY):
        if row.step.id == step_id and row.step.handler in handlers:
            return claim_of(owner, _claim(tx, owner, row, worker))
    return None


def most_urgent(tx: Base, queues: Sequence[str], handlers: Sequence[str]) -> int:
    """Give the highest priority among ready steps of some queues and handlers; -1 if there is none."""
    ready = (row.step for _, row in _open(tx, StepState.READY))
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
    found = [(o, r) for o, r in _open(tx, StepState.READY) if r.step.queue == queue and r.step.handler in known]
    found.sort(key=lambda each: (-each[1].step.priority, _ready_at(each[1].step)))
    named = [(o, r) for o, r in _open(tx, StepState.READY) if r.step.id == step_id and r.step.handler in known]
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
) -> list[HeldTask]:
    """Claim tasks for workers that poll over HTTP, the oldest first. No version is pinned here, so no rank counts."""
    wanted = (queue, is_named, handler)
    found = [
        (owner, row)
        for owner, row in _open(tx, StepState.READY)
        if (row.step.queue, row.step.is_queue_named, row.step.handler) == wanted
        and tenant_id in {None, row.step.tenant_id}
    ]
    found.sort(key=lambda each: (_ready_at(each[1].step), each[1].step.id))
    return [_handed(tx, owner, row, taker) for (owner, row), taker in zip(found, takers, strict=False)]


def _handed(tx: Base, owner: UUID, row: StepRow, taker: str) -> HeldTask:
    step = _claim(tx, owner, row, Worker(id=None, name=taker))
    return HeldTask(instance_id=owner, step=step, heartbeat_at=step.claimed_at, checkpoint=None, checkpoint_seq=0)


def _ready_at(step: Step) -> datetime:
    return step.ready_at or step.entered_at


def claims_of(tx: Base, worker_id: UUID) -> list[Claim]:
    """List the claims of one worker process."""
    return [claim_of(o, row.step) for o, row in _open(tx, StepState.CLAIMED) if row.step.worker_id == worker_id]


def claims_of_slots(tx: Base, worker_id: UUID) -> list[tuple[int, Claim]]:
    """List the claims of one worker process with the child that holds each."""
    return [
        (row.step.slot, claim_of(owner, row.step))
        for owner, row in _open(tx, StepState.CLAIMED)
        if row.step.worker_id == worker_id and row.step.slot is not None
    ]


def lost_claims(tx: Base, dead_after: timedelta, limit: int) -> list[Claim]:
    """List claims of worker processes that have stopped their heartbeat, or have left no row at all."""
    heard_after = tx.now() - dead_after
    alive = {i for i, worker in tx.tables.workers.items() if worker.heartbeat_at >= heard_after}
    lost = [
        (owner, row.step)
        for owner, row in _open(tx, StepState.CLAIMED)
        if row.step.worker_id is not None and row.step.worker_id not in alive
    ]
    return [claim_of(owner, step) for owner, step in sorted(lost, key=lambda each: each[1].id)[:limit]]


def release_stale_tasks(tx: Base, stale_after: timedelta, limit: int) -> int:
    """Give tasks of silent HTTP workers back to their queue; returns how many."""
    heard_after = tx.now() - stale_after
    stale = [
        (owner, row)
        for owner, row in _open(tx, StepState.CLAIMED)
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


# -- timers ------------------------------------------------------------------------------------------------------------


def _timers(tx: Base) -> Iterator[Due]:
    for owner, rows in tx.tables.instances.items():
        for key, due_at in rows.timers.items():
            yield Due(instance_id=owner, key=key, due_at=due_at)


def due_timers(tx: Base, limit: int) -> list[Due]:
    """List timers whose moment has come, the oldest first."""
    now = tx.now()
    due = [timer for timer in _timers(tx) if timer.due_at <= now]
    return sorted(due, key=lambda timer: (timer.due_at, timer.instance_id, timer.key))[:limit]


def next_due(tx: Base) -> timedelta | None:
    """Say how long until the next timer is due; None if there is none."""
    first = min((timer.due_at for timer in _timers(tx)), default=None)
    return None if first is None else first - tx.now()


def drop_timers(tx: Base, timers: Sequence[Due]) -> None:
    """Remove timers that no longer mean anything, unless they were set anew since they were seen."""
    for due in timers:
        rows = tx.tables.instances.get(due.instance_id)
        if rows is not None and rows.timers.get(due.key) == due.due_at:
            tx.journal.drop(rows.timers, due.key)


def postpone_timer(tx: Base, due: Due, by: timedelta) -> None:
    """Look at a timer again later, unless it was set anew since it was seen."""
    rows = tx.tables.instances.get(due.instance_id)
    if rows is not None and rows.timers.get(due.key) == due.due_at:
        tx.journal.put(rows.timers, due.key, after(tx.now(), by))
