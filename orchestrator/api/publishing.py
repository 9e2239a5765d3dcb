"""Endpoints that publish the versions of a name and withdraw them, and the plain list of all (contract, api §9)."""

from fastapi import APIRouter
from pydantic import StrictBool, StrictStr
from starlette.responses import Response

from orchestrator.api.addresses import Limit, Offset
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body, shaped
from orchestrator.api.documentation import accepts
from orchestrator.api.naming import MAX_LISTED, tenant_meant
from orchestrator.api.services import Serving
from orchestrator.api.shapes import Id, Shape, Whole

router = APIRouter(tags=["sequences"])


class Promote(Shape):
    """Which version of a name goes to production: the newest, or the one given."""

    tenant_id: StrictStr | None = None
    namespace: StrictStr | None = None
    version: Whole | None = None


class Promoted(Id):
    """The version that is in production."""

    version: int


class Unpublish(Shape):
    """What is withdrawn: all versions of a name, which are also deleted if that is asked for."""

    tenant_id: StrictStr | None = None
    namespace: StrictStr | None = None
    delete: StrictBool = False


@router.get("/sequences.json")
def list_all_sequences(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    namespace: str | None = None,
    offset: Offset = 0,
    limit: Limit = 200,
) -> Response:
    """List all versions as a bare array."""
    found = serving.catalogue.find(
        tenant=caller.narrowed(tenant_id), namespace=namespace, offset=offset, limit=min(limit, MAX_LISTED)
    )
    return Json([each.document for each in found])


@router.post(
    "/sequences/{name:path}/promote",
    status_code=201,
    responses={201: {"model": Promoted}},
    openapi_extra=accepts(Promote),
)
def promote(serving: Serving, caller: CallerDependency, name: str, body: Body) -> Response:
    """Bring a version to production, whichever stage it is at."""
    request = body.read(Promote)
    promoted = serving.catalogue.promote(
        name,
        tenant_id=_tenant(caller, request.tenant_id),
        namespace=request.namespace or "default",
        version=request.version,
    )
    return Json({"id": promoted.id, "version": promoted.version}, status_code=201)


@router.post("/sequences/{name:path}/unpublish", status_code=204, openapi_extra=accepts(Unpublish, required=False))
def unpublish(serving: Serving, caller: CallerDependency, name: str, body: Body) -> Response:
    """Withdraw all versions of a name; running instances go on."""
    written = body.json_or_none()
    request = shaped({} if written is None else written, Unpublish)
    tenant_id, namespace = _tenant(caller, request.tenant_id), request.namespace or "default"
    serving.catalogue.unpublish(name, tenant_id=tenant_id, namespace=namespace, delete=request.delete)
    return Response(status_code=204)


def _tenant(caller: Caller, written: str | None) -> str:
    return tenant_meant(caller) if written is None else caller.claim_tenant(written)
