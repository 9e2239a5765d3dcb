"""Credentials (contract, api §18.1)."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from orchestrator.api.addresses import Limit
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.credential_shapes import ChangeCredential, CreateCredential, CredentialView
from orchestrator.api.documentation import accepts
from orchestrator.api.naming import DEFAULT_TENANT, MAX_LISTED
from orchestrator.api.services import Serving
from orchestrator.store.credentials import Credential

router = APIRouter(tags=["credentials"])
_NEVER_NULL = ("name", "kind", "value", "enabled")

CredentialId = Annotated[str, Path(alias="id")]


@router.post(
    "/credentials",
    status_code=201,
    responses={201: {"model": CredentialView}},
    openapi_extra=accepts(CreateCredential),
)
def create_credential(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Store a secret; no answer ever shows it."""
    request = body.read(CreateCredential)
    written = request.tenant_id if request.tenant_id and request.tenant_id.strip() else None
    tenant = caller.claim_tenant(written) if written is not None else caller.tenant or DEFAULT_TENANT
    now = serving.engine.now()
    members = {**request.model_dump(), "tenant_id": tenant, "refresh_token": request.refresh_token or None}
    credential = Credential(**members, created_at=now, updated_at=now)
    return Json(_view(serving.credentials.create(credential)), status_code=201)


@router.get("/credentials", responses={200: {"model": list[CredentialView]}})
def list_credentials(
    serving: Serving, caller: CallerDependency, tenant_id: str | None = None, limit: Limit = MAX_LISTED
) -> Response:
    """List credentials by id."""
    found = serving.credentials.find(tenant=caller.narrowed(tenant_id), limit=min(limit, MAX_LISTED))
    return Json([_view(credential) for credential in found])


@router.get("/credentials/{id}", responses={200: {"model": CredentialView}})
def read_credential(serving: Serving, caller: CallerDependency, credential_id: CredentialId) -> Response:
    """Read what is known of a credential beside its secrets."""
    return Json(_view(serving.credentials.get(credential_id, tenant=caller.tenant)))


@router.patch("/credentials/{id}", responses={200: {"model": CredentialView}}, openapi_extra=accepts(ChangeCredential))
def change_credential(serving: Serving, caller: CallerDependency, credential_id: CredentialId, body: Body) -> Response:
    """Change what is given; steps that start from now on use it."""
    request = body.read(ChangeCredential)
    changes: dict[str, Any] = request.model_dump(include=request.model_fields_set)
    changes = {name: value for name, value in changes.items() if value is not None or name not in _NEVER_NULL}
    if "refresh_token" in changes:
        changes["refresh_token"] = changes["refresh_token"] or None
    return Json(_view(serving.credentials.change(credential_id, changes, tenant=caller.tenant)))


@router.delete("/credentials/{id}", status_code=204)
def delete_credential(serving: Serving, caller: CallerDependency, credential_id: CredentialId) -> Response:
    """Remove a credential."""
    serving.credentials.delete(credential_id, tenant=caller.tenant)
    return Response(status_code=204)


def _view(credential: Credential) -> dict[str, Any]:
    optional = {name: getattr(credential, name) for name in ("expires_at", "refresh_url", "description")}
    return {
        "id": credential.id,
        "tenant_id": credential.tenant_id,
        "name": credential.name,
        "kind": credential.kind,
        "enabled": credential.enabled,
        "has_refresh_token": credential.refresh_token is not None,
        "created_at": credential.created_at,
        "updated_at": credential.updated_at,
        **{name: value for name, value in optional.items() if value is not None},
    }
