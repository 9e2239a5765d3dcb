"""Queues as operators see them (an extension of the wire format)."""

from dataclasses import asdict
from datetime import datetime

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.services import Serving
from orchestrator.api.shapes import Shape
from orchestrator.store import queues

router = APIRouter(tags=["workers"])


class QueueView(Shape):
    """The open steps of a queue, by state, and the living workers that serve it."""

    queue: str
    states: dict[str, int]
    oldest_ready_at: datetime | None
    workers: int
    slots: int


@router.get("/queues", responses={200: {"model": list[QueueView]}})
def list_queues(serving: Serving, caller: CallerDependency, tenant_id: str | None = None) -> Response:
    """List queues that have open steps or living workers; steps are those of the tenant, workers serve all."""
    with serving.store.reading(caller.narrowed(tenant_id)) as tx:
        found = queues.overview(tx, caller.narrowed(tenant_id), serving.settings.dead_after)
    return Json([asdict(each) for each in found])
