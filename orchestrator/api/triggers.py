"""Triggers (contract, api §15, §20.8)."""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from orchestrator.api.addresses import Limit
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body, RawBody
from orchestrator.api.creation import check_context_size
from orchestrator.api.documentation import accepts, known_or_new
from orchestrator.api.instance_shapes import Context
from orchestrator.api.services import Serving
from orchestrator.api.signatures import is_one_of, signed_nonce
from orchestrator.api.trigger_shapes import ChangeTrigger, CreateTrigger, TriggerFired, TriggerView
from orchestrator.errors import InvalidArgument, Unauthorized
from orchestrator.store.session import patiently
from orchestrator.store.triggers import Trigger

router = APIRouter(tags=["triggers"])
MAX_LISTED = 1000
MAX_OVERLAP: Final = timedelta(days=30)
"""Of two secrets of a trigger: one that is to be forgotten is not kept for longer."""
REDACTED: Final = "[REDACTED]"

Slug = Annotated[str, Path(alias="slug")]


@router.post(
    "/triggers", status_code=201, responses={201: {"model": TriggerView}}, openapi_extra=accepts(CreateTrigger)
)
def create_trigger(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Make a trigger; its slug is nobody else's."""
    request = body.read(CreateTrigger)
    caller.claim_tenant(request.tenant_id)
    now = serving.engine.now()
    trigger = Trigger(**request.model_dump(), created_at=now, updated_at=now)
    return Json(_view(serving.triggers.create(trigger)), status_code=201)


@router.get("/triggers", responses={200: {"model": list[TriggerView]}})
def list_triggers(
    serving: Serving, caller: CallerDependency, tenant_id: str | None = None, limit: Limit = MAX_LISTED
) -> Response:
    """List triggers by slug."""
    found = serving.triggers.find(tenant=caller.narrowed(tenant_id), limit=min(limit, MAX_LISTED))
    return Json([_view(trigger) for trigger in found])


@router.get("/triggers/{slug}", responses={200: {"model": TriggerView}})
def read_trigger(serving: Serving, caller: CallerDependency, slug: Slug) -> Response:
    """Read a trigger; its secret is never shown."""
    return Json(_view(serving.triggers.get(slug, tenant=caller.tenant)))


@router.patch("/triggers/{slug}", responses={200: {"model": TriggerView}}, openapi_extra=accepts(ChangeTrigger))
def change_trigger(serving: Serving, caller: CallerDependency, slug: Slug, body: Body) -> Response:
    """Change what is given (an extension of the wire format); a null secret or version takes it away."""
    request = body.read(ChangeTrigger)
    changes = request.model_dump(include=request.model_fields_set, exclude={"overlap_secs"})
    if changes.get("enabled", True) is None:
        del changes["enabled"]
    if request.overlap_secs and request.secret is None:
        raise InvalidArgument("overlap_secs needs a secret")
    if request.overlap_secs > MAX_OVERLAP.total_seconds():
        raise InvalidArgument(f"overlap_secs is more than {MAX_OVERLAP.days} days")
    overlap = timedelta(seconds=request.overlap_secs)
    return Json(_view(serving.triggers.change(slug, changes, tenant=caller.tenant, overlap=overlap)))


@router.delete("/triggers/{slug}", status_code=204)
def delete_trigger(serving: Serving, caller: CallerDependency, slug: Slug) -> Response:
    """Remove a trigger; flows that it has started go on."""
    serving.triggers.delete(slug, tenant=caller.tenant)
    return Response(status_code=204)


@router.post("/triggers/{slug}/fire", status_code=201, responses=known_or_new(TriggerFired))
def fire_trigger(serving: Serving, caller: CallerDependency, request: Request, slug: Slug, body: Body) -> Response:
    """Start a flow; 200 with the first one's id when the trigger's idempotency key is known."""
    trigger = serving.triggers.get(slug, tenant=caller.tenant)
    nonce = _nonce(trigger.live_secrets, request, body) if trigger.live_secrets else None
    payload = body.json_or_none()
    check_context_size(Context(data=payload), serving.settings.max_context_bytes)
    started = patiently(lambda: serving.triggers.fire(trigger, payload, {"source": "http_fire"}, nonce=nonce))
    answer = {"instance_id": started.id, "trigger": slug, "sequence_name": trigger.sequence_name}
    if started.is_duplicate:
        return Json({**answer, "deduplicated": True}, status_code=200)
    return Json(answer, status_code=201)


def _nonce(live: Sequence[str], request: Request, body: RawBody) -> str | None:
    """Check that a caller knows a secret: it is named, or the body is signed with it. Gives the signature's nonce."""
    named = request.headers.get("x-trigger-secret")
    if named is not None:
        if not is_one_of(live, named):
            raise Unauthorized
        return None
    nonce = signed_nonce(live, request.headers, body.content, now=time.time())
    if nonce is None:
        raise Unauthorized
    return nonce


def _view(trigger: Trigger) -> dict[str, Any]:
    view: dict[str, Any] = {
        "slug": trigger.slug,
        "sequence_name": trigger.sequence_name,
        "tenant_id": trigger.tenant_id,
        "namespace": trigger.namespace,
        "enabled": trigger.enabled,
        "trigger_type": trigger.trigger_type,
        "config": trigger.config,
        "created_at": trigger.created_at,
        "updated_at": trigger.updated_at,
    }
    if trigger.version is not None:
        view["version"] = trigger.version
    if trigger.previous_secret_until is not None:
        view["previous_secret_until"] = trigger.previous_secret_until
    return view if trigger.secret is None else {**view, "secret": REDACTED}
