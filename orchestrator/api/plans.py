"""Endpoints that change what an instance still has to do (contract, api §9, §10.5; sequences §9.7 to §9.10)."""

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.addresses import InstanceId
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body, shaped
from orchestrator.api.documentation import accepts
from orchestrator.api.instances import check_owned
from orchestrator.api.plan_shapes import InjectBlocks, Injected
from orchestrator.api.services import Serving
from orchestrator.catalogue import check_blocks
from orchestrator.errors import InvalidArgument

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
    instance = serving.engine.inject(instance_id, blocks, request.position)
    return Json(
        {
            "injected_block_ids": [block.id for block in blocks],
            "position": request.position,
            "total_injected": instance.injected,
        }
    )
