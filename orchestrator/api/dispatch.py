"""Push queues (contract, api §13.8)."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.dispatch_shapes import ConfigureDispatch, DispatchView
from orchestrator.api.documentation import accepts
from orchestrator.api.services import Serving
from orchestrator.catalogue import MAX_LONG_NAME_BYTES, MAX_NAME_BYTES
from orchestrator.egress import refuse_private
from orchestrator.encryption import is_sealed
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.step_errors import PermanentError
from orchestrator.store import dispatch
from orchestrator.store.dispatch import DispatchConfig

router = APIRouter(tags=["workers"])


@router.post("/queues/dispatch", responses={200: {"model": DispatchView}}, openapi_extra=accepts(ConfigureDispatch))
def configure_dispatch(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Say how the tasks of a queue reach their worker, in place of what was said before."""
    request = body.read(ConfigureDispatch)
    caller.claim_tenant(request.tenant_id)
    _check(request)
    if request.push_url is not None:
        try:
            refuse_private(request.push_url, allow_internal=serving.settings.allow_internal_urls)
        except PermanentError as error:
            raise InvalidArgument(f"push_url: {error}") from error
    with serving.store.transaction() as tx:
        stored = dispatch.put(
            tx,
            tenant_id=request.tenant_id,
            queue_name=request.queue_name,
            mode=request.mode,
            push_url=request.push_url,
            secret=request.secret or None,
            second_secret=request.second_secret or None,
            sync=request.sync,
        )
    return Json(_view(stored))


def _check(request: ConfigureDispatch) -> None:
    if not request.queue_name.strip():
        raise InvalidArgument("queue_name must not be empty")
    if request.mode == "push" and not (request.push_url or "").strip():
        raise InvalidArgument("a push queue needs a push_url")
    if any(is_sealed(each or "") for each in (request.secret, request.second_secret)):
        raise InvalidArgument("secret looks like one that this server has sealed")
    if request.second_secret and not request.secret:
        raise InvalidArgument("a second_secret needs a secret")
    limits = {"tenant_id": MAX_NAME_BYTES, "queue_name": MAX_NAME_BYTES}
    limits |= dict.fromkeys(("push_url", "secret", "second_secret"), MAX_LONG_NAME_BYTES)
    for name, limit in limits.items():
        if len((getattr(request, name) or "").encode()) > limit:
            raise InvalidArgument(f"{name} is longer than {limit} bytes")


@router.get("/queues/dispatch", responses={200: {"model": list[DispatchView]}})
def list_dispatch(serving: Serving, caller: CallerDependency, tenant_id: str | None = None) -> Response:
    """List what was said of queues."""
    with serving.store.reading(caller.narrowed(tenant_id)) as tx:
        found = dispatch.find(tx, caller.narrowed(tenant_id))
    return Json([_view(config) for config in found])


@router.delete("/queues/dispatch/{tenant_id}/{queue_name:path}", status_code=204)
def delete_dispatch(serving: Serving, caller: CallerDependency, tenant_id: str, queue_name: str) -> Response:
    """Let the tasks of a queue be polled only."""
    with serving.store.transaction() as tx:
        is_known = caller.tenant in {None, tenant_id} and dispatch.delete(tx, tenant_id, queue_name)
    if not is_known:
        raise NotFound(f"dispatch of queue {queue_name}")
    return Response(status_code=204)


def _view(config: DispatchConfig) -> dict[str, Any]:
    view: dict[str, Any] = {"tenant_id": config.tenant_id, "queue_name": config.queue_name, "mode": config.mode}
    if config.push_url is not None:
        view["push_url"] = config.push_url
    if config.sync:
        view["sync"] = True
    return {**view, "created_at": config.created_at, "updated_at": config.updated_at}
