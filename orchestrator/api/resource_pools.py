"""Endpoints of resource pools (contract, api §17.2)."""

import re
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path
from starlette.responses import Response

from orchestrator.api.addresses import Limit, Offset
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.documentation import accepts
from orchestrator.api.naming import MAX_LISTED, check_name
from orchestrator.api.resource_shapes import ChangeResource, CreatePool, CreateResource, PoolView, ResourceView
from orchestrator.api.services import Services, Serving
from orchestrator.errors import AlreadyExists, InvalidArgument, NotFound
from orchestrator.store import resource_pools
from orchestrator.store.resource_pools import Pool
from orchestrator.store.session import Transaction

router = APIRouter(tags=["resource pools"])
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

PoolId = Annotated[UUID, Path(alias="id")]


@router.post("/pools", status_code=201, responses={201: {"model": PoolView}}, openapi_extra=accepts(CreatePool))
def create_pool(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Make a pool; its name is the tenant's own."""
    request = body.read(CreatePool)
    caller.claim_tenant(request.tenant_id)
    check_name("tenant_id", request.tenant_id)
    check_name("name", request.name)
    with serving.store.transaction() as tx:
        made = resource_pools.insert_pool(
            tx, serving.engine.new_id(), request.tenant_id, request.name, request.strategy.value
        )
    if made is None:
        raise AlreadyExists(f"pool {request.name!r}")
    return Json(asdict(made), status_code=201)


@router.get("/pools", responses={200: {"model": list[PoolView]}})
def list_pools(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    offset: Offset = 0,
    limit: Limit = MAX_LISTED,
) -> Response:
    """List pools, the oldest first."""
    with serving.store.reading(caller.narrowed(tenant_id)) as tx:
        found = resource_pools.find_pools(tx, caller.narrowed(tenant_id), offset=offset, limit=min(limit, MAX_LISTED))
    return Json([asdict(pool) for pool in found])


@router.get("/pools/{id}", responses={200: {"model": PoolView}})
def read_pool(serving: Serving, caller: CallerDependency, pool_id: PoolId) -> Response:
    """Read a pool."""
    with serving.store.reading(caller.tenant) as tx:
        return Json(asdict(_owned(tx, caller, pool_id)))


@router.delete("/pools/{id}", status_code=204)
def delete_pool(serving: Serving, caller: CallerDependency, pool_id: PoolId) -> Response:
    """Remove a pool and all that is in it."""
    check_pool(serving, caller, pool_id)
    with serving.store.transaction() as tx:
        _owned(tx, caller, pool_id)
        resource_pools.delete_pool(tx, pool_id)
    return Response(status_code=204)


@router.post(
    "/pools/{id}/resources",
    status_code=201,
    responses={201: {"model": ResourceView}},
    openapi_extra=accepts(CreateResource),
)
def create_resource(serving: Serving, caller: CallerDependency, pool_id: PoolId, body: Body) -> Response:
    """Put a resource into a pool; others in it may have the same key."""
    values = _checked(body.read(CreateResource).model_dump())
    check_pool(serving, caller, pool_id)
    with serving.store.transaction() as tx:
        _owned(tx, caller, pool_id, lock=True)
        made = resource_pools.insert_resource(tx, pool_id, serving.engine.new_id(), values)
    return Json(asdict(made), status_code=201)


@router.get("/pools/{id}/resources", responses={200: {"model": list[ResourceView]}})
def list_resources(
    serving: Serving, caller: CallerDependency, pool_id: PoolId, offset: Offset = 0, limit: Limit = MAX_LISTED
) -> Response:
    """List what is in a pool, the oldest first."""
    with serving.store.reading(caller.tenant) as tx:
        _owned(tx, caller, pool_id)
        found = resource_pools.find_resources(tx, pool_id, offset=offset, limit=min(limit, MAX_LISTED))
    return Json([asdict(resource) for resource in found])


@router.put(
    "/pools/{id}/resources/{resource_id}",
    responses={200: {"model": ResourceView}},
    openapi_extra=accepts(ChangeResource),
)
def change_resource(
    serving: Serving, caller: CallerDependency, pool_id: PoolId, resource_id: UUID, body: Body
) -> Response:
    """Change what is given of a resource."""
    request = body.read(ChangeResource)
    given = request.model_dump(include=request.model_fields_set)
    values = _checked({name: each for name, each in given.items() if each is not None or name == "warmup_start"})
    check_pool(serving, caller, pool_id)
    with serving.store.transaction() as tx:
        _owned(tx, caller, pool_id)
        changed = resource_pools.change_resource(tx, pool_id, resource_id, values)
    if changed is None:
        raise NotFound(f"resource {resource_id}")
    return Json(asdict(changed))


@router.delete("/pools/{id}/resources/{resource_id}", status_code=204)
def delete_resource(serving: Serving, caller: CallerDependency, pool_id: PoolId, resource_id: UUID) -> Response:
    """Take a resource out of its pool; one that is gone already is fine."""
    check_pool(serving, caller, pool_id)
    with serving.store.transaction() as tx:
        _owned(tx, caller, pool_id)
        found = resource_pools.get_resource(tx, resource_id)
        if found is not None and found.pool_id != pool_id:
            raise NotFound(f"resource {resource_id}")
        resource_pools.delete_resource(tx, pool_id, resource_id)
    return Response(status_code=204)


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """Check what is given of a resource, and read its date."""
    for name in ("resource_key", "name"):
        if name in values:
            check_name(name, values[name])
    if values.get("weight", 1) < 1:
        raise InvalidArgument("weight must be at least 1")
    written = values.get("warmup_start")
    return values if written is None else {**values, "warmup_start": _date_of(written)}


def _date_of(written: str) -> date:
    if _DATE.fullmatch(written):
        try:
            return date.fromisoformat(written)
        except ValueError:
            pass
    raise InvalidArgument(f"warmup_start must be a date such as 2026-01-31, not {written[:40]!r}")


def check_pool(serving: Services, caller: Caller, pool_id: UUID) -> None:
    """Refuse a pool that the caller's tenant does not see."""
    with serving.store.reading(caller.tenant) as tx:
        _owned(tx, caller, pool_id)


def _owned(tx: Transaction, caller: Caller, pool_id: UUID, *, lock: bool = False) -> Pool:
    found = resource_pools.get_pool(tx, pool_id, caller.tenant, lock=lock)
    if found is None:
        raise NotFound(f"pool {pool_id}")
    return found
