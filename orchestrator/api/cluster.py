"""Endpoints of the worker processes of the installation (contract, api §21); for administrators."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.services import Serving
from orchestrator.api.shapes import Shape
from orchestrator.errors import NotFound
from orchestrator.store import workers

router = APIRouter(tags=["cluster"])


class NodeView(Shape):
    """A worker process; one that has not been heard of for too long is stopped."""

    id: UUID
    name: str
    status: Literal["active", "draining", "stopped"]
    registered_at: datetime
    last_heartbeat_at: datetime
    drain: bool
    queues: list[str]
    slots: int


@router.get("/cluster/nodes", responses={200: {"model": list[NodeView]}})
def list_nodes(serving: Serving, _caller: CallerDependency) -> Response:
    """List worker processes by name; one that has stopped in order is not among them."""
    with serving.store.transaction() as tx:
        found = workers.nodes(tx, serving.settings.dead_after)
    return Json([asdict(node) for node in found])


@router.post("/cluster/nodes/{id}/drain", responses={200: {"model": NodeView}})
def drain_node(serving: Serving, _caller: CallerDependency, node_id: Annotated[UUID, Path(alias="id")]) -> Response:
    """Let a worker process take no more steps, end those it runs, and stop."""
    with serving.store.transaction() as tx:
        drained = workers.drain(tx, node_id, serving.settings.dead_after)
    if drained is None:
        raise NotFound(f"node {node_id}")
    return Json(asdict(drained))
