"""Checkpoints of instances (contract, api §10.6): kept in any state, and never read by the engine itself."""

from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.addresses import InstanceId
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.documentation import accepts
from orchestrator.api.instance_shapes import Checkpoint, PruneCheckpoints, SaveCheckpoint
from orchestrator.api.instances import check_owned
from orchestrator.api.services import Serving
from orchestrator.api.shapes import Count, Id
from orchestrator.errors import NotFound, PayloadTooLarge
from orchestrator.store import checkpoints

router = APIRouter(tags=["checkpoints"])
MAX_LISTED = 100


@router.post(
    "/instances/{id}/checkpoints",
    status_code=201,
    responses={201: {"model": Id}},
    openapi_extra=accepts(SaveCheckpoint),
)
def save_checkpoint(serving: Serving, caller: CallerDependency, instance_id: InstanceId, body: Body) -> Response:
    """Keep a snapshot."""
    data = body.read(SaveCheckpoint).checkpoint_data
    check_owned(serving, caller, instance_id)
    size, limit = len(orjson.dumps(data)), serving.settings.max_context_bytes
    if size > limit:
        raise PayloadTooLarge(f"checkpoint is {size} bytes; the limit is {limit}")
    checkpoint_id = serving.engine.new_id()
    with serving.store.transaction() as tx:
        checkpoints.insert(tx, instance_id, checkpoint_id, data)
    return Json({"id": checkpoint_id}, status_code=201)


@router.get("/instances/{id}/checkpoints", responses={200: {"model": list[Checkpoint]}})
def list_checkpoints(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """List the snapshots, the newest first."""
    check_owned(serving, caller, instance_id)
    with serving.store.reading(caller.tenant) as tx:
        return Json([_view(instance_id, row) for row in checkpoints.newest(tx, instance_id, MAX_LISTED)])


@router.get("/instances/{id}/checkpoints/latest", responses={200: {"model": Checkpoint}})
def latest_checkpoint(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Read the newest snapshot."""
    check_owned(serving, caller, instance_id)
    with serving.store.reading(caller.tenant) as tx:
        found = checkpoints.newest(tx, instance_id, 1)
    if not found:
        raise NotFound(f"checkpoint of instance {instance_id}")
    return Json(_view(instance_id, found[0]))


@router.post(
    "/instances/{id}/checkpoints/prune", responses={200: {"model": Count}}, openapi_extra=accepts(PruneCheckpoints)
)
def prune_checkpoints(serving: Serving, caller: CallerDependency, instance_id: InstanceId, body: Body) -> Response:
    """Delete all snapshots but the newest ones."""
    keep = body.read(PruneCheckpoints).keep
    check_owned(serving, caller, instance_id)
    with serving.store.transaction() as tx:
        return Json({"count": checkpoints.prune(tx, instance_id, keep)})


def _view(instance_id: UUID, row: checkpoints.Row) -> dict[str, Any]:
    return {"id": row[0], "instance_id": instance_id, "checkpoint_data": row[1], "created_at": row[2]}
