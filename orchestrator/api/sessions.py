"""Sessions: data that instances share (contract, api §17.1, §20.7)."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Path
from starlette.responses import Response

from orchestrator import bindings
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.documentation import accepts
from orchestrator.api.instance_shapes import TaskInstance
from orchestrator.api.services import Services, Serving
from orchestrator.api.session_shapes import CreateSession, SessionView, SetSessionData, SetSessionState
from orchestrator.api.shapes import Count
from orchestrator.api.views import listed_view
from orchestrator.core.states import InstanceState
from orchestrator.errors import AlreadyExists, InvalidArgument, NotFound, PayloadTooLarge
from orchestrator.store import instances, listing, pages, sessions
from orchestrator.store.listing import Filter
from orchestrator.store.sessions import Session
from sequences.signals import Control

router = APIRouter(tags=["sessions"])
MAX_KEY_CHARACTERS = 512
MAX_TENANT_CHARACTERS = 128
MAX_LISTED = 1000

SessionId = Annotated[UUID, Path(alias="id")]
_RUNNING = tuple(state for state in InstanceState if not state.is_terminal)


@router.post(
    "/sessions", status_code=201, responses={201: {"model": SessionView}}, openapi_extra=accepts(CreateSession)
)
def create_session(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Make a session; its key is the tenant's own."""
    request = body.read(CreateSession)
    caller.claim_tenant(request.tenant_id)
    if not request.tenant_id.strip():
        raise InvalidArgument("tenant_id must not be empty")
    _check_key(request.tenant_id, request.session_key)
    _check_size(serving, request.data)
    with serving.store.transaction() as tx:
        made = sessions.insert(
            tx, serving.engine.new_id(), request.tenant_id, request.session_key, request.data, request.expires_at
        )
    if made is None:
        raise AlreadyExists(f"session {request.session_key!r}")
    return Json(_view(made), status_code=201)


def _check_key(tenant_id: str, session_key: str) -> None:
    if not session_key or len(session_key) > MAX_KEY_CHARACTERS:
        raise InvalidArgument(f"session_key must have 1 to {MAX_KEY_CHARACTERS} characters")
    if len(tenant_id) > MAX_TENANT_CHARACTERS:
        raise InvalidArgument(f"tenant_id is longer than {MAX_TENANT_CHARACTERS} characters")


def _check_size(serving: Services, data: Any) -> None:
    size, limit = len(orjson.dumps(data)), serving.settings.max_context_bytes
    if size > limit:
        raise PayloadTooLarge(f"session data are {size} bytes; the limit is {limit}")


@router.get("/sessions/by-key/{tenant_id}/{session_key:path}", responses={200: {"model": SessionView}})
def read_session_by_key(serving: Serving, caller: CallerDependency, tenant_id: str, session_key: str) -> Response:
    """Find the session of a key."""
    _check_key(tenant_id, session_key)
    with serving.store.reading(caller.tenant) as tx:
        found = sessions.by_key(tx, tenant_id, session_key) if caller.tenant in {None, tenant_id} else None
    if found is None:
        raise NotFound(f"session {session_key}")
    return Json(_view(found))


@router.get("/sessions/{id}", responses={200: {"model": SessionView}})
def read_session(serving: Serving, caller: CallerDependency, session_id: SessionId) -> Response:
    """Read a session."""
    return Json(_view(_owned(serving, caller, session_id)))


@router.patch("/sessions/{id}/data", response_class=Response, openapi_extra=accepts(SetSessionData))
def set_session_data(serving: Serving, caller: CallerDependency, session_id: SessionId, body: Body) -> Response:
    """Replace the data."""
    data = body.read(SetSessionData).data
    _owned(serving, caller, session_id)
    _check_size(serving, data)
    with serving.store.transaction() as tx:
        sessions.put_data(tx, session_id, data)
    return Response()


@router.patch("/sessions/{id}/state", response_class=Response, openapi_extra=accepts(SetSessionState))
def set_session_state(serving: Serving, caller: CallerDependency, session_id: SessionId, body: Body) -> Response:
    """Set the state; its instances go on whatever it is."""
    state = body.read(SetSessionState).state
    _owned(serving, caller, session_id)
    with serving.store.transaction() as tx:
        sessions.put_state(tx, session_id, state.value)
    return Response()


@router.get("/sessions/{id}/instances", responses={200: {"model": list[TaskInstance]}})
def list_session_instances(serving: Serving, caller: CallerDependency, session_id: SessionId) -> Response:
    """List the instances of a session, the newest change first."""
    _owned(serving, caller, session_id)
    with serving.store.reading(caller.tenant) as tx:
        instances.freeze(tx)
        rows = pages.find(tx, Filter(session_id=session_id), offset=0, limit=MAX_LISTED)
        found = bindings.listed(tx, serving.plans, rows)
    return Json([listed_view(row) for row in found])


@router.post("/sessions/{id}/cancel", responses={200: {"model": Count}})
def cancel_session(serving: Serving, caller: CallerDependency, session_id: SessionId) -> Response:
    """Cancel all its instances that have not ended; returns how many."""
    _owned(serving, caller, session_id)
    count, cancelled = 0, set[UUID]()
    while waiting := [i for i in _running(serving, caller, session_id) if i not in cancelled]:
        cancelled.update(waiting)
        count += serving.engine.interventions.signal_many(waiting, Control.CANCEL, None)
    return Json({"count": count})


def _running(serving: Services, caller: Caller, session_id: UUID) -> list[UUID]:
    states = tuple(state.value for state in _RUNNING)
    with serving.store.reading(caller.tenant) as tx:
        return listing.ids(tx, Filter(session_id=session_id, states=states))


def _owned(serving: Services, caller: Caller, session_id: UUID) -> Session:
    with serving.store.reading(caller.tenant) as tx:
        found = sessions.get(tx, session_id, caller.tenant)
    if found is None:
        raise NotFound(f"session {session_id}")
    return found


def _view(session: Session) -> dict[str, Any]:
    return {name: value for name, value in asdict(session).items() if name != "expires_at" or value is not None}
