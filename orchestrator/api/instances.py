"""Endpoints that create and change instances (contract, api §10.2, §10.3, §10.5)."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter
from pydantic import FailFast, TypeAdapter, ValidationError
from starlette.responses import Response

from orchestrator.api.addresses import InstanceId
from orchestrator.api.admission import admit
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body, Rejection, shaped
from orchestrator.api.creation import (
    check_context_size,
    check_names,
    check_startable,
    heads_of,
    new_instance,
)
from orchestrator.api.documentation import accepts, known_or_new
from orchestrator.api.instance_shapes import (
    BatchCreated,
    CreateBatch,
    CreateInstance,
    InstanceCreated,
    Retried,
    SetContext,
    SetState,
    StartInstance,
)
from orchestrator.api.naming import DEFAULT_TENANT
from orchestrator.api.services import Services, Serving
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.exchange import Started
from orchestrator.store import instances
from orchestrator.store.session import patiently

router = APIRouter(tags=["instances"])
MAX_BATCH = 10_000
_ENTRIES: Final = TypeAdapter(Annotated[list[CreateInstance], FailFast()])


@router.post(
    "/instances", status_code=201, responses=known_or_new(InstanceCreated), openapi_extra=accepts(CreateInstance)
)
async def create_instance(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Start an instance; 200 with the first one's id when the idempotency key is known."""
    request = await body.read_async(CreateInstance)
    _check_names(request, caller)
    return _created(await admit(serving, request))


def _check_names(request: CreateInstance, caller: Caller) -> None:
    check_names(
        caller,
        tenant_id=request.tenant_id,
        namespace=request.namespace,
        idempotency_key=request.idempotency_key,
    )


def _created(started: Started) -> Response:
    if started.is_duplicate:
        return Json({"id": started.id, "deduplicated": True}, status_code=200)
    return Json({"id": started.id}, status_code=201)


@router.post(
    "/instances/batch", status_code=201, responses=known_or_new(BatchCreated), openapi_extra=accepts(CreateBatch)
)
def create_batch(serving: Serving, caller: CallerDependency, body: Body, ids: bool = False) -> Response:
    """Start instances, all or none. `?ids=true` (an extension) adds their ids, in the order of the request."""
    written = body.read(CreateBatch).instances
    if len(written) > MAX_BATCH:
        raise InvalidArgument(f"a batch holds at most {MAX_BATCH} instances")
    requests = _batch_entries(written)
    if not requests:
        return Json({"count": 0})
    _check_all_names(requests, caller)
    heads = heads_of(serving, (request.sequence_id for request in requests))
    new = []
    for index, request in enumerate(requests):
        head = heads.get(request.sequence_id)
        head = check_startable(serving, head, request.tenant_id, f"instances[{index}]: sequence not found")
        new.append(new_instance(serving, request, head, tenant_id=request.tenant_id, namespace=request.namespace))
    started = patiently(lambda: serving.engine.start_many(new))
    answer: dict[str, Any] = {"count": sum(not each.is_duplicate for each in started)}
    if ids:
        answer["ids"] = [each.id for each in started]
        answer["deduplicated"] = [each.id for each in started if each.is_duplicate]
    return Json(answer, status_code=201)


def _batch_entries(written: list[Any]) -> list[CreateInstance]:
    """Check the shapes of all entries together; what does not fit is named by the check of its entry alone."""
    try:
        return _ENTRIES.validate_python(written)
    except ValidationError:
        return [_batch_entry(index, entry) for index, entry in enumerate(written)]


def _batch_entry(index: int, entry: Any) -> CreateInstance:
    try:
        return shaped(entry, CreateInstance)
    except Rejection as rejection:
        raise Rejection(rejection.status, f"instances[{index}]: {rejection.text}") from rejection


def _check_all_names(requests: list[CreateInstance], caller: Caller) -> None:
    """Check the names of all entries, in their order; those of a tenant and namespace once."""
    checked: set[tuple[str, str]] = set()
    for request in requests:
        names = (request.tenant_id, request.namespace)
        if request.idempotency_key is not None or names not in checked:
            _check_names(request, caller)
            checked.add(names)


@router.post(
    "/sequences/{name}/instances",
    status_code=201,
    responses=known_or_new(InstanceCreated),
    openapi_extra=accepts(StartInstance),
)
def create_instance_by_name(serving: Serving, caller: CallerDependency, name: str, body: Body) -> Response:
    """Start an instance of the newest version of a sequence, or of the version asked for."""
    request = body.read(StartInstance)
    tenant_id = caller.tenant or DEFAULT_TENANT if request.tenant_id is None else request.tenant_id
    namespace = "default" if request.namespace is None else request.namespace
    check_names(caller, tenant_id=tenant_id, namespace=namespace, idempotency_key=request.idempotency_key)
    stored = serving.catalogue.startable(
        name, tenant=tenant_id, tenant_id=tenant_id, namespace=namespace, version=request.version
    )
    head = check_startable(serving, heads_of(serving, [stored.id]).get(stored.id), tenant_id, f"sequence {name}")
    new = new_instance(serving, request, head, tenant_id=tenant_id, namespace=namespace)
    return _created(patiently(lambda: serving.engine.start_many([new]))[0])


def check_owned(serving: Services, caller: Caller, instance_id: UUID) -> None:
    """Refuse an instance that does not exist in the caller's tenant."""
    with serving.store.reading(caller.tenant, is_single=True) as tx:
        tenant = instances.tenant_of(tx, instance_id)
    if tenant is None or caller.tenant not in {None, tenant}:
        raise NotFound(f"instance {instance_id}")


@router.patch("/instances/{id}/state", response_class=Response, openapi_extra=accepts(SetState))
def set_state(serving: Serving, caller: CallerDependency, instance_id: InstanceId, body: Body) -> Response:
    """Set the state by hand; only the moves of the state table are allowed."""
    request = body.read(SetState)
    check_owned(serving, caller, instance_id)
    serving.engine.interventions.set_state(instance_id, request.state, request.next_fire_at)
    return Response()


@router.patch("/instances/{id}/context", response_class=Response, openapi_extra=accepts(SetContext))
def set_context(serving: Serving, caller: CallerDependency, instance_id: InstanceId, body: Body) -> Response:
    """Replace data and config, in any state."""
    context = body.read(SetContext).context
    check_owned(serving, caller, instance_id)
    check_context_size(context, serving.settings.max_context_bytes)
    serving.engine.interventions.replace_context(instance_id, context.data, context.config)
    return Response()


@router.post("/instances/{id}/retry", responses={200: {"model": Retried}})
def retry(serving: Serving, caller: CallerDependency, instance_id: InstanceId, body: Body) -> Response:
    """Open a failed instance again, at its failed step."""
    if not isinstance(body.json_or_none(), dict | None):
        raise Rejection(422, "Failed to deserialize the JSON body: expected an object")
    check_owned(serving, caller, instance_id)
    serving.engine.interventions.retry(instance_id)
    return Json({"id": instance_id, "state": "scheduled"})
