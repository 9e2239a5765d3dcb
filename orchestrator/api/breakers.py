"""Endpoints of circuit breakers (contract, api §17.3, §20.5)."""

from dataclasses import asdict
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.addresses import Limit, Offset
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.documentation import accepts
from orchestrator.api.naming import MAX_LISTED, check_name, tenant_meant
from orchestrator.api.resource_shapes import BreakerView, SetBreaker
from orchestrator.api.services import Services, Serving
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.store import breakers
from orchestrator.store.breakers import MAX_HANDLER_BYTES, Breaker
from sequences.handlers import has_breaker

router = APIRouter(tags=["circuit breakers"])
LISTED: Final[dict[int | str, dict[str, Any]]] = {200: {"model": list[BreakerView]}}
SHOWN: Final[dict[int | str, dict[str, Any]]] = {200: {"model": BreakerView}}


@router.get("/circuit-breakers", responses=LISTED)
def list_breakers(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    offset: Offset = 0,
    limit: Limit = MAX_LISTED,
) -> Response:
    """List the breakers of handlers that have run, or were configured, by tenant and handler."""
    return _listed(serving, caller.narrowed(tenant_id), offset, limit)


@router.post("/circuit-breakers", responses=SHOWN, openapi_extra=accepts(SetBreaker))
def configure_breaker(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Set how the breaker of a handler works; what it has counted stays."""
    request = body.read(SetBreaker)
    tenant_id = tenant_meant(caller) if request.tenant_id is None else caller.claim_tenant(request.tenant_id)
    check_name("tenant_id", tenant_id)
    if not request.handler.strip() or len(request.handler.encode()) > MAX_HANDLER_BYTES:
        raise InvalidArgument(f"handler must have 1 to {MAX_HANDLER_BYTES} bytes")
    if not has_breaker(request.handler):
        raise InvalidArgument(f"handler {request.handler!r} has no circuit breaker: it calls nobody outside")
    if request.failure_threshold < 1:
        raise InvalidArgument("failure_threshold must be at least 1")
    if request.cooldown_secs < 0:
        raise InvalidArgument("cooldown_secs must not be negative")
    with serving.store.transaction() as tx:
        configured = breakers.configure(
            tx,
            tenant_id,
            request.handler,
            failure_threshold=request.failure_threshold,
            cooldown_secs=request.cooldown_secs,
            on_open=request.on_open.value,
        )
    return Json(_view(configured))


@router.get("/circuit-breakers/{handler}", responses=SHOWN)
def read_breaker(serving: Serving, caller: CallerDependency, handler: str, tenant_id: str | None = None) -> Response:
    """Read the breaker of a handler."""
    return _shown(serving, tenant_meant(caller, tenant_id), handler)


@router.post("/circuit-breakers/{handler}/reset", response_class=Response)
def reset_breaker(serving: Serving, caller: CallerDependency, handler: str, tenant_id: str | None = None) -> Response:
    """Close the breaker of a handler; an unknown handler is fine."""
    return _reset(serving, tenant_meant(caller, tenant_id), handler)


@router.get("/tenants/{tenant_id}/circuit-breakers", responses=LISTED)
def list_breakers_of_tenant(
    serving: Serving, caller: CallerDependency, tenant_id: str, offset: Offset = 0, limit: Limit = MAX_LISTED
) -> Response:
    """List the breakers of a tenant by handler."""
    return _listed(serving, _own(caller, tenant_id), offset, limit)


@router.get("/tenants/{tenant_id}/circuit-breakers/{handler}", responses=SHOWN)
def read_breaker_of_tenant(serving: Serving, caller: CallerDependency, tenant_id: str, handler: str) -> Response:
    """Read the breaker of a handler of a tenant."""
    return _shown(serving, _own(caller, tenant_id), handler)


@router.post("/tenants/{tenant_id}/circuit-breakers/{handler}/reset", response_class=Response)
def reset_breaker_of_tenant(serving: Serving, caller: CallerDependency, tenant_id: str, handler: str) -> Response:
    """Close the breaker of a handler of a tenant; an unknown handler is fine."""
    return _reset(serving, _own(caller, tenant_id), handler)


def _own(caller: Caller, tenant_id: str) -> str:
    if caller.tenant not in {None, tenant_id}:
        raise NotFound(f"tenant {tenant_id}")
    return tenant_id


def _listed(serving: Services, tenant_id: str | None, offset: int, limit: int) -> Response:
    with serving.store.reading(tenant_id) as tx:
        found = breakers.find(tx, tenant_id, offset=offset, limit=min(limit, MAX_LISTED))
    return Json([_view(each) for each in found])


def _shown(serving: Services, tenant_id: str, handler: str) -> Response:
    with serving.store.reading(tenant_id) as tx:
        found = breakers.get(tx, tenant_id, handler)
    if found is None:
        raise NotFound(f"circuit_breaker {handler}")
    return Json(_view(found))


def _reset(serving: Services, tenant_id: str, handler: str) -> Response:
    with serving.store.transaction() as tx:
        breakers.reset(tx, tenant_id, handler)
    return Response()


def _view(breaker: Breaker) -> dict[str, Any]:
    return {name: value for name, value in asdict(breaker).items() if name != "opened_at" or value is not None}
