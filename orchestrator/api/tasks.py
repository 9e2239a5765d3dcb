"""The protocol of workers that poll (contract, api §13.2-13.6).

The lease of a task is its claimer and the epoch of the claim. Whatever a worker reports is one transaction of the
engine, so an instance reads right as soon as the call is answered.
"""

from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.addresses import TaskId
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.documentation import accepts
from orchestrator.api.services import Services, Serving
from orchestrator.api.step_logs import store_logs
from orchestrator.api.task_shapes import (
    CheckpointSequence,
    CompleteTask,
    FailTask,
    Heartbeat,
    Lease,
    Poll,
    PollQueue,
    WorkerTask,
)
from orchestrator.api.task_views import open_task_view
from orchestrator.catalogue import MAX_LONG_NAME_BYTES, MAX_NAME_BYTES
from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome
from orchestrator.core.states import StepState
from orchestrator.core.steps import runs_in_process
from orchestrator.credential_use import cleared, without
from orchestrator.errors import Conflict, InvalidArgument, NotFound, PayloadTooLarge
from orchestrator.exchange import Report
from orchestrator.store import steps, task_events, tasks
from orchestrator.store.steps import HeldTask
from orchestrator.versions import rank_of

router = APIRouter(tags=["workers"])

MAX_CLAIMED_AT_ONCE = 1000
MAX_CHECKPOINT_BYTES = 256 * 1024
MAX_MESSAGE_CHARACTERS = 4096
"""As for handlers of our own workers: a failure is read in lists and logs."""
MAX_EPOCH = 2**31 - 1
"""Whatever a worker names: the store keeps no larger numbers."""
LEASE_CHANGED = "worker task lease changed"
OWNERSHIP_CHANGED = "worker task ownership or checkpoint sequence changed"


@router.post("/workers/tasks/poll", responses={200: {"model": list[WorkerTask]}}, openapi_extra=accepts(Poll))
def poll(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Claim tasks of a handler that name no queue, the oldest first."""
    return _poll(serving, caller, body.read(Poll), None)


@router.post(
    "/workers/tasks/poll/queue", responses={200: {"model": list[WorkerTask]}}, openapi_extra=accepts(PollQueue)
)
def poll_queue(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Claim tasks of a handler on exactly one queue, the oldest first."""
    request = body.read(PollQueue)
    return _poll(serving, caller, request, request.queue_name)


def _poll(serving: Services, caller: Caller, request: Poll, queue: str | None) -> Response:
    _check_poll(request, queue)
    serving.pollers.heard(serving.store, caller.tenant, request.worker_id, request.handler_name, queue, request.version)
    if runs_in_process(request.handler_name):
        return Json([])
    limit = min(request.limit, MAX_CLAIMED_AT_ONCE)
    claims = _claim(serving, caller, request, queue, limit)
    if queue is None and serving.settings.poll_any_queue and len(claims) < limit:
        with serving.store.reading(caller.tenant) as tx:
            queues = tasks.named_queues(tx, request.handler_name, caller.tenant)
        for named in queues:
            claims += _claim(serving, caller, request, named, limit - len(claims))
    return Json(_handed_out(serving, caller, claims))


def _check_poll(request: Poll, queue: str | None) -> None:
    limits = {"worker_id": MAX_NAME_BYTES, "handler_name": MAX_LONG_NAME_BYTES}
    for name, limit in limits.items():
        if len(getattr(request, name).encode()) > limit:
            raise InvalidArgument(f"{name} is longer than {limit} bytes")
    if request.version is not None and len(request.version.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(f"version is longer than {MAX_NAME_BYTES} bytes")
    if queue is not None and len(queue.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(f"queue_name is longer than {MAX_NAME_BYTES} bytes")


def _claim(serving: Services, caller: Caller, request: Poll, queue: str | None, limit: int) -> list[Claim]:
    if limit <= 0:
        return []
    return serving.engine.claim_tasks(
        request.worker_id,
        handler=request.handler_name,
        queue=queue,
        tenant_id=caller.tenant,
        limit=limit,
        rank=None if request.version is None else rank_of(request.version),
    )


def _handed_out(serving: Services, caller: Caller, claims: list[Claim]) -> list[dict[str, Any]]:
    """Show claimed tasks with their inputs; those whose inputs cannot be made are failed and left out."""
    if not claims:
        return []
    work = [serving.credential_use.filled(each) for each in serving.engine.inputs(claims)]
    # A claim that has ended meanwhile is not ours to fail.
    broken = [
        Report(claim=each.claim, outcome=each.failure)
        for each in work
        if each.failure is not None and each.failure.kind is not FailureKind.LOST
    ]
    if broken:
        serving.engine.finish(broken)
    with serving.store.reading(caller.tenant) as tx:
        held = {each.step.id: each for each in steps.held_tasks(tx, [claim.step_id for claim in claims])}
    ready = [(held[each.claim.step_id], each) for each in work if each.failure is None and each.claim.step_id in held]
    ready.sort(key=lambda pair: (pair[0].step.ready_at or pair[0].step.entered_at, pair[0].step.id))
    return [open_task_view(task, each.params, each.scope) for task, each in ready]


@router.post("/workers/tasks/{id}/complete", response_class=Response, openapi_extra=accepts(CompleteTask))
def complete(serving: Serving, caller: CallerDependency, task_id: TaskId, body: Body) -> Response:
    """Store a task's output and move its instance on."""
    request = body.read(CompleteTask)
    limit = serving.settings.max_output_bytes
    if len(orjson.dumps(request.output)) > limit:
        raise PayloadTooLarge(f"output is larger than {limit} bytes")
    outcome = Completed(output=request.output, merges=True)
    return _report(serving, caller, task_id, request, outcome, request.logs)


@router.post("/workers/tasks/{id}/fail", response_class=Response, openapi_extra=accepts(FailTask))
def fail(serving: Serving, caller: CallerDependency, task_id: TaskId, body: Body) -> Response:
    """Fail a task; it is tried again if the failure is retryable and the step has attempts left."""
    request = body.read(FailTask)
    failure = Failed(message=request.message, retryable=request.retryable, details=request.details)
    return _report(serving, caller, task_id, request, failure, request.logs)


def _without_secrets(
    serving: Services, claim: Claim, outcome: Outcome, logs: list[Any] | None
) -> tuple[Outcome, list[Any] | None]:
    """Clear what a worker says of a failure, and what it logs, of the credentials that it was given."""
    if not isinstance(outcome, Failed) and not logs:
        return outcome, logs
    for each in serving.engine.inputs([claim]):
        work = serving.credential_use.known(each)
        outcome, logs = cleared(outcome, work), without(logs, work.secrets)
    return outcome, logs


def _shortened(outcome: Outcome) -> Outcome:
    """Keep the beginning of a message; once it is cleared, for half a secret would not be found any more."""
    if isinstance(outcome, Failed) and len(outcome.message) > MAX_MESSAGE_CHARACTERS:
        return replace(outcome, message=outcome.message[:MAX_MESSAGE_CHARACTERS])
    return outcome


def _report(
    serving: Services, caller: Caller, task_id: UUID, lease: Lease, outcome: Outcome, logs: list[Any] | None
) -> Response:
    """Commit an outcome; 200 without effect when the instance was ended or paused under the worker's hands."""
    act = "complete" if isinstance(outcome, Completed) else "fail"
    for _ in range(2):
        held = _held(serving, caller, task_id, lease, act, LEASE_CHANGED)
        if held is None:
            return Response()
        outcome, logs = _without_secrets(serving, held.claim, outcome, logs)
        finished = serving.engine.finish([Report(claim=held.claim, outcome=_shortened(outcome))])
        if not finished.stale:
            store_logs(serving, held.claim.instance_id, held.claim.key.block_id, logs)
            return Response()
    raise Conflict(LEASE_CHANGED)


def _held(serving: Services, caller: Caller, task_id: UUID, lease: Lease, act: str, conflict: str) -> HeldTask | None:
    """Find the task a worker speaks for; whoever has lost it is refused, and that is noted.

    Args:
        act: What the worker wants to do.
        conflict: What is said if the task is another's.

    Returns:
        None if it was taken from the worker because its instance was ended or paused.

    Raises:
        NotFound: There is no such task in the caller's tenant.
        Conflict: The claim is another worker's, or has ended.
    """
    with serving.store.reading(caller.tenant) as tx:
        held = steps.held_task(tx, task_id)
        ended = tasks.ended(tx, task_id) if held is None else None
    owner = held.step.tenant_id if held is not None else ended.tenant_id if ended is not None else None
    if owner is None or caller.tenant not in {None, owner}:
        raise NotFound(f"worker_task {task_id}")
    if ended is not None and ended.outcome == "cancelled" and ended.is_stopped:
        return None
    if held is None or not _is_current(held, lease):
        _note_rejected(serving, task_id, lease, act)
        raise Conflict(conflict)
    return held


def _note_rejected(serving: Services, task_id: UUID, lease: Lease, act: str) -> None:
    epoch = min(lease.claim_epoch or 0, MAX_EPOCH)
    with serving.store.transaction(is_losable=True) as tx:
        task_events.note_rejected(
            tx,
            serving.engine.new_id(),
            task_id,
            worker=lease.worker_id,
            epoch=epoch,
            reason=act,
            now=serving.engine.now(),
        )


def _is_current(held: HeldTask, lease: Lease) -> bool:
    return (
        held.step.state is StepState.CLAIMED
        and held.step.worker_name == lease.worker_id
        and lease.claim_epoch in {None, held.step.claim_epoch}
    )


@router.post(
    "/workers/tasks/{id}/heartbeat", responses={200: {"model": CheckpointSequence}}, openapi_extra=accepts(Heartbeat)
)
def heartbeat(serving: Serving, caller: CallerDependency, task_id: TaskId, body: Body) -> Response:
    """Renew the lease of a task, and store a checkpoint for whoever has to take over."""
    request = body.read(Heartbeat)
    if request.checkpoint is not None:
        if request.checkpoint_seq is None:
            raise InvalidArgument("checkpoint_seq is required with a checkpoint")
        if len(orjson.dumps(request.checkpoint)) > MAX_CHECKPOINT_BYTES:
            raise PayloadTooLarge(f"checkpoint is larger than {MAX_CHECKPOINT_BYTES} bytes")
    held = _held(serving, caller, task_id, request, "heartbeat", OWNERSHIP_CHANGED)
    if held is None:
        raise Conflict(OWNERSHIP_CHANGED)
    if request.checkpoint is None:
        return Json({"checkpoint_seq": _renewed(serving, held)})
    return Json({"checkpoint_seq": _saved(serving, held, request)})


def _renewed(serving: Services, held: HeldTask) -> int:
    with serving.store.transaction(is_losable=True) as tx:
        if not steps.beat(tx, held.step.id, held.claim.token):
            raise Conflict(OWNERSHIP_CHANGED)
    return held.checkpoint_seq


def _saved(serving: Services, held: HeldTask, request: Heartbeat) -> int:
    number = request.checkpoint_seq
    if number is None or number != held.checkpoint_seq:
        raise Conflict(OWNERSHIP_CHANGED)
    with serving.store.transaction() as tx:
        if not steps.save_checkpoint(tx, held.step.id, held.claim.token, request.checkpoint, number):
            raise Conflict(OWNERSHIP_CHANGED)
    return number + 1
