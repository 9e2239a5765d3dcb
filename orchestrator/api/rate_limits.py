"""Endpoints of limits by key (contract, api §20.4)."""

from dataclasses import asdict

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.addresses import Limit, Offset
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.documentation import accepts
from orchestrator.api.naming import MAX_LISTED, check_name, owner_meant
from orchestrator.api.resource_shapes import RateLimitView, SetRateLimit
from orchestrator.api.services import Serving
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.store import rate_limits
from orchestrator.store.session import Transaction

router = APIRouter(tags=["rate limits"])


@router.post(
    "/rate-limits", status_code=201, responses={201: {"model": RateLimitView}}, openapi_extra=accepts(SetRateLimit)
)
def set_rate_limit(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Set the limit of a key, whether it has one or not."""
    request = body.read(SetRateLimit)
    caller.claim_tenant(request.tenant_id)
    for name in ("tenant_id", "resource_key"):
        check_name(name, getattr(request, name))
    for name in ("max_count", "window_seconds"):
        if getattr(request, name) < 1:
            raise InvalidArgument(f"{name} must be at least 1")
    with serving.store.transaction() as tx:
        written = rate_limits.put(
            tx, request.tenant_id, request.resource_key, request.max_count, request.window_seconds
        )
    return Json(asdict(written), status_code=201)


@router.get("/rate-limits", responses={200: {"model": list[RateLimitView]}})
def list_rate_limits(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    offset: Offset = 0,
    limit: Limit = MAX_LISTED,
) -> Response:
    """List limits by tenant and key."""
    with serving.store.reading(caller.narrowed(tenant_id)) as tx:
        found = rate_limits.find(tx, caller.narrowed(tenant_id), offset=offset, limit=min(limit, MAX_LISTED))
    return Json([asdict(each) for each in found])


@router.get("/rate-limits/{resource_key:path}", responses={200: {"model": RateLimitView}})
def read_rate_limit(
    serving: Serving, caller: CallerDependency, resource_key: str, tenant_id: str | None = None
) -> Response:
    """Read the limit of a key."""
    with serving.store.reading(caller.tenant) as tx:
        found = rate_limits.get(tx, _owner(tx, caller, tenant_id, resource_key), resource_key)
    if found is None:
        raise NotFound(f"rate limit {resource_key}")
    return Json(asdict(found))


@router.delete("/rate-limits/{resource_key:path}", status_code=204)
def delete_rate_limit(
    serving: Serving, caller: CallerDependency, resource_key: str, tenant_id: str | None = None
) -> Response:
    """Take the limit of a key away; what waits for it may start."""
    with serving.store.transaction() as tx:
        if not rate_limits.delete(tx, _owner(tx, caller, tenant_id, resource_key), resource_key):
            raise NotFound(f"rate limit {resource_key}")
    return Response(status_code=204)


def _owner(tx: Transaction, caller: Caller, asked: str | None, resource_key: str) -> str:
    return owner_meant(caller, asked, lambda: rate_limits.owners(tx, resource_key))
