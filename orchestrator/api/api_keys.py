"""Keys of tenants (contract, api §18.2). The paths are open to the root key alone, see `auth`."""

import secrets
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.capabilities import Capability
from orchestrator.api.documentation import accepts
from orchestrator.api.key_shapes import ApiKeyView, CreateApiKey, NewApiKey
from orchestrator.api.services import Serving
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.store import api_keys

router = APIRouter(tags=["keys"])
MAX_LISTED = 1000
MAX_NAME_CHARACTERS = 255

KeyId = Annotated[str, Path(alias="id")]


@router.post("/api-keys", status_code=201, responses={201: {"model": NewApiKey}}, openapi_extra=accepts(CreateApiKey))
def create_api_key(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Make a key of a tenant; the answer is the only one that shows its secret."""
    request = body.read(CreateApiKey)
    if not request.tenant_id.strip():
        raise InvalidArgument("tenant_id is required")
    caller.claim_tenant(request.tenant_id)
    if len(request.name) > MAX_NAME_CHARACTERS:
        raise InvalidArgument(f"name is longer than {MAX_NAME_CHARACTERS} characters")
    made = serving.keyring.new_secret()
    with serving.store.transaction() as tx:
        key = api_keys.insert(
            tx,
            f"ak_{secrets.token_hex(16)}",
            made.digest,
            tenant_id=request.tenant_id,
            name=request.name,
            capabilities=request.capabilities or [Capability.OPERATOR],
            expires_at=request.expires_at,
        )
    shown = {
        "id": key.id,
        "tenant_id": key.tenant_id,
        "name": key.name,
        "capabilities": key.capabilities,
        "secret": made.secret,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
    }
    return Json(shown, status_code=201)


@router.get("/api-keys", responses={200: {"model": list[ApiKeyView]}})
def list_api_keys(serving: Serving, caller: CallerDependency, tenant_id: Annotated[str, Query()]) -> Response:
    """List the keys of a tenant, the newest first, revoked ones too; at most 1000."""
    if not tenant_id.strip():
        raise InvalidArgument("tenant_id query parameter is required")
    serving.keyring.settle()
    with serving.store.reading(caller.narrowed(tenant_id)) as tx:
        found = api_keys.find(tx, caller.narrowed(tenant_id) or tenant_id, limit=MAX_LISTED)
    return Json([asdict(key) for key in found])


@router.delete("/api-keys/{id}", status_code=204)
def revoke_api_key(serving: Serving, caller: CallerDependency, key_id: KeyId) -> Response:
    """Revoke a key: it opens nothing from now on, in no process. Repeatable."""
    with serving.store.transaction() as tx:
        is_known = api_keys.revoke(tx, key_id, caller.tenant)
    if not is_known:
        raise NotFound(f"api_key {key_id}")
    return Response(status_code=204)
