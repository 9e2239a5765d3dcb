"""Endpoints that let instances go over to another version (contract, api §9, §20.10; sequences §1)."""

from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.bulk import filter_of, pages_of
from orchestrator.api.documentation import accepts
from orchestrator.api.plan_shapes import (
    MigratedInstance,
    MigratedInstances,
    MigrateInstance,
    MigrateInstances,
)
from orchestrator.api.services import Services, Serving
from orchestrator.core.states import InstanceState
from orchestrator.errors import Forbidden, NotFound
from orchestrator.store import definitions, instances

router = APIRouter(tags=["sequences"])


@router.post(
    "/sequences/migrate-instance",
    responses={200: {"model": MigratedInstance}},
    openapi_extra=accepts(MigrateInstance),
)
def migrate_instance(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Let one instance go over to another version, whatever it is doing."""
    request = body.read(MigrateInstance)
    with serving.store.reading(caller.tenant) as tx:
        record = instances.get(tx, request.instance_id, caller.tenant)
    if record is None:
        raise NotFound(f"instance {request.instance_id}")
    _check_target(serving, request.target_sequence_id, record.instance.tenant_id)
    serving.engine.interventions.migrate(request.instance_id, request.target_sequence_id)
    return Json(
        {
            "migrated": True,
            "instance_id": request.instance_id,
            "from_sequence_id": record.instance.sequence_id,
            "to_sequence_id": request.target_sequence_id,
        }
    )


@router.post(
    "/sequences/migrate-instances",
    responses={200: {"model": MigratedInstances}},
    openapi_extra=accepts(MigrateInstances),
)
def migrate_instances(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Let all instances of a filter go over to another version (an extension of the wire format)."""
    request = body.read(MigrateInstances)
    which = filter_of(caller, request.filter)
    assert which.tenant_id is not None  # noqa: S101 - `filter_of` refuses a filter without
    _check_target(serving, request.target_sequence_id, which.tenant_id)
    target = request.target_sequence_id
    matched = migrated = failed = 0
    for page in pages_of(serving, which):
        wanted = [i for i, state, former in page if not InstanceState(state).is_terminal and former != target]
        matched += len(page)
        if request.dry_run:
            migrated += len(wanted)
        else:
            tally = serving.engine.interventions.migrate_many(wanted, target)
            migrated, failed = migrated + tally.applied, failed + tally.gone
    skipped = matched - migrated - failed
    return Json({"matched": matched, "migrated": migrated, "skipped": skipped, "failed": failed})


def _check_target(serving: Services, sequence_id: UUID, tenant_id: str) -> None:
    with serving.store.transaction() as tx:
        target = definitions.heads(tx, [sequence_id]).get(sequence_id)
    if target is None:
        raise NotFound(f"sequence {sequence_id}")
    if target.tenant_id != tenant_id:
        raise Forbidden(f"sequence {sequence_id} belongs to another tenant")
