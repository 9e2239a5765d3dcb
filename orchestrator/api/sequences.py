"""Endpoints of sequences (contract, api §9)."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from orchestrator.api.addresses import Limit, Offset, SequenceId
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body, Rejection
from orchestrator.api.documentation import accepts, known_or_new
from orchestrator.api.plan_shapes import SetStatus
from orchestrator.api.services import Serving
from orchestrator.api.shapes import SequenceCreated
from sequences.document import DocumentError, SequenceDefinition

router = APIRouter(tags=["sequences"])
MAX_PAGE = 1000


@router.post(
    "/sequences",
    responses=known_or_new(SequenceCreated),
    status_code=201,
    openapi_extra=accepts(SequenceDefinition),
)
def create_sequence(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Store a definition, canonical or shorthand; 200 when shorthand says what its newest version says already."""
    try:
        accepted = serving.catalogue.create(body.json(max_depth=None), tenant=caller.tenant)
    except DocumentError as error:
        raise Rejection(422, f"Failed to deserialize the JSON body: {error}") from error
    answer: dict[str, Any] = {"id": accepted.id}
    if accepted.warnings:
        answer["warnings"] = accepted.warnings
    return Json(answer, status_code=201 if accepted.is_new else 200)


@router.get("/sequences")
def list_sequences(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    namespace: str | None = None,
    offset: Offset = 0,
    limit: Limit = 200,
) -> Response:
    """List all versions, deprecated ones too."""
    limit = min(limit, MAX_PAGE)
    found = serving.catalogue.find(
        tenant=caller.narrowed(tenant_id), namespace=namespace, offset=offset, limit=limit + 1
    )
    return Json({"items": [each.document for each in found[:limit]], "has_more": len(found) > limit})


Name = Annotated[str, Query()]


@router.get("/sequences/by-name")
def sequence_by_name(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: Name,
    namespace: Name,
    name: Name,
    version: Annotated[int | None, Query(ge=-(2**31), lt=2**31)] = None,
) -> Response:
    """Read the highest version that is not deprecated, or exactly the one asked for."""
    return Json(serving.catalogue.by_name(caller.tenant or tenant_id, namespace, name, version).document)


@router.get("/sequences/versions")
def sequence_versions(
    serving: Serving, caller: CallerDependency, tenant_id: Name, namespace: Name, name: Name
) -> Response:
    """List the versions of a name that are not deprecated, highest first."""
    found = serving.catalogue.versions(caller.tenant or tenant_id, namespace, name)
    return Json([each.document for each in found])


@router.get("/sequences/{id}")
def read_sequence(serving: Serving, caller: CallerDependency, sequence_id: SequenceId) -> Response:
    """Read one version."""
    return Json(serving.catalogue.get(sequence_id, tenant=caller.tenant).document)


@router.post("/sequences/{id}/deprecate", status_code=204)
def deprecate_sequence(serving: Serving, caller: CallerDependency, sequence_id: SequenceId) -> Response:
    """Take a version out of look-ups by name."""
    serving.catalogue.deprecate(sequence_id, tenant=caller.tenant)
    return Response(status_code=204)


@router.delete("/sequences/{id}", status_code=204)
def delete_sequence(serving: Serving, caller: CallerDependency, sequence_id: SequenceId) -> Response:
    """Delete a version and its ended instances."""
    serving.catalogue.delete(sequence_id, tenant=caller.tenant)
    return Response(status_code=204)


@router.post("/sequences/{id}/status", status_code=204, openapi_extra=accepts(SetStatus))
def set_status(serving: Serving, caller: CallerDependency, sequence_id: SequenceId, body: Body) -> Response:
    """Move a version on: draft, staging, production, unpublished."""
    serving.catalogue.set_status(sequence_id, body.read(SetStatus).status, tenant=caller.tenant)
    return Response(status_code=204)
