"""The protocol of workers that poll (contract, api §13.2-13.6).

The lease of a task is its claimer and the epoch of the claim. Whatever a worker reports is committed before the call is
answered, so an instance reads right as soon as it is.
"""

from functools import partial
from uuid import UUID

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.addresses import TaskId
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body, RawBody
from orchestrator.api.documentation import accepts
from orchestrator.api.leases import find_held
from orchestrator.api.polling import hand_out
from orchestrator.api.reporting import reported
from orchestrator.api.services import Services, Serving
from orchestrator.api.task_shapes import (
    CheckpointSequence,
    CompleteTask,
    FailTask,
    Heartbeat,
    Poll,
    PollQueue,
    TaskCall,
    TaskReport,
    WorkerTask,
)
from orchestrator.core.outcomes import Completed, Failed
from orchestrator.errors import Conflict, InvalidArgument, PayloadTooLarge
from orchestrator.store import leases
from orchestrator.store.leases import HeldTask

router = APIRouter(tags=["workers"])

MAX_CHECKPOINT_BYTES = 256 * 1024
OWNERSHIP_CHANGED = "worker task ownership or checkpoint sequence changed"


@router.post("/workers/tasks/poll", responses={200: {"model": list[WorkerTask]}}, openapi_extra=accepts(Poll))
async def poll(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Claim tasks of a handler that name no queue, the oldest first."""
    return await hand_out(serving, caller, await body.read_async(Poll), None)


@router.post(
    "/workers/tasks/poll/queue", responses={200: {"model": list[WorkerTask]}}, openapi_extra=accepts(PollQueue)
)
async def poll_queue(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Claim tasks of a handler on exactly one queue, the oldest first."""
    request = await body.read_async(PollQueue)
    return await hand_out(serving, caller, request, request.queue_name)


@router.post("/workers/tasks/{id}/complete", response_class=Response, openapi_extra=accepts(CompleteTask))
async def complete(serving: Serving, caller: CallerDependency, task_id: TaskId, body: Body) -> Response:
    """Store a task's output and move its instance on."""
    return await reported(serving, caller, body, partial(_completion, serving.settings.max_output_bytes, task_id))


def _completion(limit: int, task_id: UUID, body: RawBody) -> TaskReport:
    request = body.read(CompleteTask)
    if len(orjson.dumps(request.output)) > limit:
        raise PayloadTooLarge(f"output is larger than {limit} bytes")
    outcome = Completed(output=request.output, merges=True)
    return TaskReport(task_id=task_id, lease=request, act="complete", outcome=outcome, logs=request.logs)


@router.post("/workers/tasks/{id}/fail", response_class=Response, openapi_extra=accepts(FailTask))
async def fail(serving: Serving, caller: CallerDependency, task_id: TaskId, body: Body) -> Response:
    """Fail a task; it is tried again if the failure is retryable and the step has attempts left."""
    return await reported(serving, caller, body, partial(_failure, task_id))


def _failure(task_id: UUID, body: RawBody) -> TaskReport:
    request = body.read(FailTask)
    failure = Failed(message=request.message, retryable=request.retryable, details=request.details)
    return TaskReport(task_id=task_id, lease=request, act="fail", outcome=failure, logs=request.logs)


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
    call = TaskCall(task_id=task_id, lease=request, act="heartbeat")
    [held] = find_held(serving, caller.tenant, [call], OWNERSHIP_CHANGED)
    if held is None:
        raise Conflict(OWNERSHIP_CHANGED)
    if not isinstance(held, HeldTask):
        raise held
    if request.checkpoint is None:
        return Json({"checkpoint_seq": _renewed(serving, held)})
    return Json({"checkpoint_seq": _saved(serving, held, request)})


def _renewed(serving: Services, held: HeldTask) -> int:
    with serving.store.transaction(is_losable=True) as tx:
        if not leases.beat(tx, held.step.id, held.claim.token):
            raise Conflict(OWNERSHIP_CHANGED)
    return held.checkpoint_seq


def _saved(serving: Services, held: HeldTask, request: Heartbeat) -> int:
    number = request.checkpoint_seq
    if number is None or number != held.checkpoint_seq:
        raise Conflict(OWNERSHIP_CHANGED)
    with serving.store.transaction() as tx:
        if not leases.save_checkpoint(tx, held.step.id, held.claim.token, request.checkpoint, number):
            raise Conflict(OWNERSHIP_CHANGED)
    return number + 1
