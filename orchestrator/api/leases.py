"""Whose a task is: the lease is its claimer and the epoch of the claim (contract, api §13.4)."""

from collections.abc import Sequence

from orchestrator.api.services import Services
from orchestrator.api.task_shapes import Lease, TaskCall
from orchestrator.core.states import StepState
from orchestrator.errors import Conflict, NotFound
from orchestrator.store import leases, task_events, tasks
from orchestrator.store.leases import HeldTask
from orchestrator.store.tasks import EndedTask

MAX_EPOCH = 2**31 - 1
"""Whatever a worker names: the store keeps no larger numbers."""


def find_held(
    serving: Services, tenant: str | None, calls: Sequence[TaskCall], conflict: str
) -> list[HeldTask | NotFound | Conflict | None]:
    """Find the tasks that workers speak for; whoever has lost one is refused, and that is noted.

    Args:
        tenant: Whose tasks may be spoken for; None for those of all.
        conflict: What is said if the claim is another worker's, or has ended.

    Returns:
        For each call the task, or why it is refused; None if the task was taken from the worker because its instance
        was ended or paused.
    """
    ids = [call.task_id for call in calls]
    with serving.store.reading(tenant, is_single=True) as tx:
        held = {task.step.id: task for task in leases.held_tasks(tx, ids)}
        ended = {task_id: tasks.ended(tx, task_id) for task_id in ids if task_id not in held}
    found = [_judged(tenant, call, held.get(call.task_id), ended.get(call.task_id), conflict) for call in calls]
    _note_rejected(serving, [call for call, each in zip(calls, found, strict=True) if isinstance(each, Conflict)])
    return found


def _judged(
    tenant: str | None, call: TaskCall, held: HeldTask | None, ended: EndedTask | None, conflict: str
) -> HeldTask | NotFound | Conflict | None:
    owner = held.step.tenant_id if held is not None else ended.tenant_id if ended is not None else None
    if owner is None or tenant not in {None, owner}:
        return NotFound(f"worker_task {call.task_id}")
    if ended is not None and ended.outcome == "cancelled" and ended.is_stopped:
        return None
    return held if held is not None and _is_current(held, call.lease) else Conflict(conflict)


def _is_current(held: HeldTask, lease: Lease) -> bool:
    return (
        held.step.state is StepState.CLAIMED
        and held.step.worker_name == lease.worker_id
        and lease.claim_epoch in {None, held.step.claim_epoch}
    )


def _note_rejected(serving: Services, calls: Sequence[TaskCall]) -> None:
    if not calls:
        return
    ids, now = [serving.engine.new_id() for _ in calls], serving.engine.now()
    with serving.store.transaction(is_losable=True) as tx:
        for event_id, call in zip(ids, calls, strict=True):
            task_events.note_rejected(
                tx,
                event_id,
                call.task_id,
                worker=call.lease.worker_id,
                epoch=min(call.lease.claim_epoch or 0, MAX_EPOCH),
                reason=call.act,
                now=now,
            )
