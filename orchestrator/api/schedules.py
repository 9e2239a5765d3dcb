"""Cron schedules (contract, api §14)."""

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from orchestrator.api.addresses import Limit
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.documentation import accepts
from orchestrator.api.schedule_shapes import (
    ChangeSchedule,
    CreateSchedule,
    NextFires,
    ScheduleCreated,
    ScheduleView,
)
from orchestrator.api.services import Serving
from orchestrator.store.schedules import Schedule

router = APIRouter(tags=["cron"])
MAX_LISTED = 1000
MAX_FIRES = 50

ScheduleId = Annotated[UUID, Path(alias="id")]
Count = Annotated[int, Query(ge=0, lt=2**63)]


@router.post(
    "/cron", status_code=201, responses={201: {"model": ScheduleCreated}}, openapi_extra=accepts(CreateSchedule)
)
def create_schedule(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Let a sequence be started at the moments that a cron expression of 5, 6 or 7 fields names."""
    request = body.read(CreateSchedule)
    caller.claim_tenant(request.tenant_id)
    now = serving.engine.now()
    schedule = Schedule(id=serving.engine.new_id(), **request.model_dump(), created_at=now, updated_at=now)
    made = serving.schedules.create(schedule)
    return Json({"id": made.id, "next_fire_at": made.next_fire_at}, status_code=201)


@router.get("/cron", responses={200: {"model": list[ScheduleView]}})
def list_schedules(
    serving: Serving, caller: CallerDependency, tenant_id: str | None = None, limit: Limit = MAX_LISTED
) -> Response:
    """List schedules, the oldest first, disabled ones too."""
    found = serving.schedules.find(tenant=caller.narrowed(tenant_id), limit=min(limit, MAX_LISTED))
    return Json([asdict(schedule) for schedule in found])


@router.get("/cron/{id}", responses={200: {"model": ScheduleView}})
def read_schedule(serving: Serving, caller: CallerDependency, schedule_id: ScheduleId) -> Response:
    """Read a schedule."""
    return Json(asdict(serving.schedules.get(schedule_id, tenant=caller.tenant)))


@router.put("/cron/{id}", responses={200: {"model": ScheduleView}}, openapi_extra=accepts(ChangeSchedule))
def change_schedule(serving: Serving, caller: CallerDependency, schedule_id: ScheduleId, body: Body) -> Response:
    """Change what is given; with other times it fires for moments after this one."""
    request = body.read(ChangeSchedule)
    given = request.model_dump(include=request.model_fields_set)
    changes = {name: value for name, value in given.items() if value is not None or name == "metadata"}
    return Json(asdict(serving.schedules.change(schedule_id, changes, tenant=caller.tenant)))


@router.delete("/cron/{id}", status_code=204)
def delete_schedule(serving: Serving, caller: CallerDependency, schedule_id: ScheduleId) -> Response:
    """Remove a schedule; flows that it has started go on."""
    serving.schedules.delete(schedule_id, tenant=caller.tenant)
    return Response(status_code=204)


@router.get("/cron/{id}/next-fires", responses={200: {"model": NextFires}})
def list_next_fires(serving: Serving, caller: CallerDependency, schedule_id: ScheduleId, n: Count = 5) -> Response:
    """List the next moments that the expression names, 50 at the most, whether or not it is enabled."""
    schedule = serving.schedules.get(schedule_id, tenant=caller.tenant)
    fires = serving.schedules.next_fires(schedule, min(n, MAX_FIRES))
    return Json({"timezone": schedule.timezone, "fires": fires})
