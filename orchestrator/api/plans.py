"""Endpoints that change what an instance still has to do (contract, api §9, §10.5; sequences §9.7 to §9.10)."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.addresses import InstanceId
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body, Rejection, shaped
from orchestrator.api.documentation import accepts
from orchestrator.api.instances import check_owned
from orchestrator.api.plan_shapes import (
    ForkedInstance,
    ForkInstance,
    InjectBlocks,
    Injected,
    ResumedFromBlock,
    ResumeFrom,
)
from orchestrator.api.services import Serving
from orchestrator.api.signals import signal_of
from orchestrator.catalogue import check_blocks
from orchestrator.core.states import InstanceState
from orchestrator.errors import InvalidArgument
from orchestrator.exchange import Restart
from sequences.signals import SignalType

router = APIRouter(tags=["instances"])


@router.post("/instances/{id}/inject-blocks", responses={200: {"model": Injected}}, openapi_extra=accepts(InjectBlocks))
def inject_blocks(serving: Serving, caller: CallerDependency, instance_id: InstanceId, body: Body) -> Response:
    """Let blocks join the root list of an instance, in any state."""
    request = shaped(body.json(max_depth=None), InjectBlocks)
    check_owned(serving, caller, instance_id)
    if request.position is not None and request.position < 0:
        raise InvalidArgument("position must not be negative")
    blocks = check_blocks(request.blocks)
    if not blocks:
        raise InvalidArgument("blocks must not be empty")
    instance = serving.engine.interventions.inject(instance_id, blocks, request.position)
    return Json(
        {
            "injected_block_ids": [block.id for block in blocks],
            "position": request.position,
            "total_injected": instance.injected,
        }
    )


@router.post(
    "/instances/{id}/resume-from/{block_id:path}",
    responses={200: {"model": ResumedFromBlock}},
    openapi_extra=accepts(ResumeFrom),
)
def resume_from(
    serving: Serving, caller: CallerDependency, instance_id: InstanceId, block_id: str, body: Body
) -> Response:
    """Run a root block and all behind it anew, in a flow that is paused or has ended."""
    written = body.json_or_none()
    request = shaped({} if written is None else written, ResumeFrom)
    signals = _signals(request.signals)
    check_owned(serving, caller, instance_id)
    restart = Restart(block_id=block_id, data=request.context or {}, signals=signals)
    resumed = serving.engine.interventions.resume_from(instance_id, restart)
    return Json(
        {
            "id": instance_id,
            "state": _state_to_tell(resumed.instance.state),
            "resumed_from": block_id,
            "outputs_deleted": resumed.outputs_deleted,
            "signals_enqueued": len(signals),
        }
    )


@router.post(
    "/instances/{id}/fork",
    status_code=201,
    responses={201: {"model": ForkedInstance}},
    openapi_extra=accepts(ForkInstance),
)
def fork(serving: Serving, caller: CallerDependency, instance_id: InstanceId, body: Body) -> Response:
    """Start a copy of a flow that goes on from a root block, as a dry run unless it is asked not to be one."""
    request = body.read(ForkInstance)
    signals = _signals(request.signals)
    check_owned(serving, caller, instance_id)
    restart = Restart(block_id=request.from_block_id, data=request.context or {}, signals=signals)
    forked = serving.engine.interventions.fork(instance_id, restart, dry_run=request.dry_run)
    answer = {
        "id": forked.instance.id,
        "forked_from": instance_id,
        "state": _state_to_tell(forked.instance.state),
        "copied_blocks": forked.copied,
        "rerun_blocks": forked.rerun,
        "dry_run": request.dry_run,
    }
    return Json(answer, status_code=201)


def _signals(written: list[Any] | None) -> list[tuple[SignalType, Any]]:
    if not all(isinstance(each, dict) for each in written or ()):
        raise Rejection(422, "Failed to deserialize the JSON body: signals: expected objects")
    return [(signal_of(each), each.get("payload")) for each in written or ()]


def _state_to_tell(state: InstanceState) -> InstanceState:
    """Say `scheduled` of a flow that goes on, however quick it was; one that a signal has stopped is what it is."""
    is_stopped = state.is_terminal or state is InstanceState.PAUSED
    return state if is_stopped else InstanceState.SCHEDULED
