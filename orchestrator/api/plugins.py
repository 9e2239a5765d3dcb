"""Endpoints of the registry of plugins (contract, api §21)."""

from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Any

from fastapi import APIRouter
from pydantic import StrictBool, StrictStr
from starlette.responses import Response

from orchestrator.api.addresses import Limit, Offset
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.documentation import accepts
from orchestrator.api.naming import MAX_LISTED, check_name, owner_meant, tenant_meant
from orchestrator.api.services import Serving
from orchestrator.api.shapes import Shape
from orchestrator.errors import AlreadyExists, InvalidArgument, NotFound
from orchestrator.store import plugins
from orchestrator.store.session import Transaction

router = APIRouter(tags=["plugins"])


class PluginType(StrEnum):
    """What a plugin is."""

    WASM = "wasm"
    GRPC = "grpc"


class CreatePlugin(Shape):
    """A plugin; without a tenant it is the caller's."""

    name: StrictStr
    plugin_type: PluginType
    source: StrictStr
    tenant_id: StrictStr | None = None
    config: Any = None
    description: StrictStr | None = None


class ChangePlugin(Shape):
    """What changes of a plugin; a null source or `enabled` changes nothing."""

    source: StrictStr | None = None
    enabled: StrictBool | None = None
    config: Any = None
    description: StrictStr | None = None


class PluginView(Shape):
    """A registered plugin."""

    name: str
    plugin_type: PluginType
    source: str
    tenant_id: str
    enabled: bool
    config: Any
    description: str | None
    created_at: datetime
    updated_at: datetime


@router.post("/plugins", status_code=201, responses={201: {"model": PluginView}}, openapi_extra=accepts(CreatePlugin))
def create_plugin(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Register a plugin; its name is the tenant's own."""
    request = body.read(CreatePlugin)
    tenant_id = caller.claim_tenant(request.tenant_id) if request.tenant_id else tenant_meant(caller)
    check_name("tenant_id", tenant_id)
    check_name("name", request.name)
    _check_source(request.source)
    with serving.store.transaction() as tx:
        made = plugins.insert(
            tx,
            tenant_id,
            request.name,
            request.plugin_type.value,
            request.source,
            request.config,
            request.description,
        )
    if made is None:
        raise AlreadyExists(f"plugin {request.name!r}")
    return Json(asdict(made), status_code=201)


@router.get("/plugins", responses={200: {"model": list[PluginView]}})
def list_plugins(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    offset: Offset = 0,
    limit: Limit = MAX_LISTED,
) -> Response:
    """List plugins by tenant and name."""
    with serving.store.reading(caller.narrowed(tenant_id)) as tx:
        found = plugins.find(tx, caller.narrowed(tenant_id), offset=offset, limit=min(limit, MAX_LISTED))
    return Json([asdict(each) for each in found])


@router.get("/plugins/{name:path}", responses={200: {"model": PluginView}})
def read_plugin(serving: Serving, caller: CallerDependency, name: str, tenant_id: str | None = None) -> Response:
    """Read a plugin."""
    with serving.store.reading(caller.tenant) as tx:
        found = plugins.get(tx, _owner(tx, caller, tenant_id, name), name)
    if found is None:
        raise NotFound(f"plugin {name}")
    return Json(asdict(found))


@router.patch("/plugins/{name:path}", responses={200: {"model": PluginView}}, openapi_extra=accepts(ChangePlugin))
def change_plugin(
    serving: Serving, caller: CallerDependency, name: str, body: Body, tenant_id: str | None = None
) -> Response:
    """Change what is given of a plugin."""
    request = body.read(ChangePlugin)
    values = request.model_dump(include=request.model_fields_set)
    values = {key: each for key, each in values.items() if each is not None or key in {"config", "description"}}
    if "source" in values:
        _check_source(values["source"])
    with serving.store.transaction() as tx:
        changed = plugins.change(tx, _owner(tx, caller, tenant_id, name), name, values)
    if changed is None:
        raise NotFound(f"plugin {name}")
    return Json(asdict(changed))


@router.delete("/plugins/{name:path}", status_code=204)
def delete_plugin(serving: Serving, caller: CallerDependency, name: str, tenant_id: str | None = None) -> Response:
    """Take a plugin off the registry."""
    with serving.store.transaction() as tx:
        if not plugins.delete(tx, _owner(tx, caller, tenant_id, name), name):
            raise NotFound(f"plugin {name}")
    return Response(status_code=204)


def _owner(tx: Transaction, caller: Caller, asked: str | None, name: str) -> str:
    return owner_meant(caller, asked, lambda: plugins.owners(tx, name))


def _check_source(source: str) -> None:
    if not source.strip():
        raise InvalidArgument("source must not be blank")
