"""Endpoints of correlation events (contract, api §21)."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import StrictStr
from starlette.responses import Response

from orchestrator.api.addresses import Limit, Offset
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body, Rejection, shaped
from orchestrator.api.documentation import accepts, known_or_new
from orchestrator.api.naming import MAX_LISTED, check_name
from orchestrator.api.services import Services, Serving
from orchestrator.api.shapes import Shape
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.store import correlation_events
from orchestrator.store.correlation_events import CorrelationEvent, NewEvent, Wanted
from orchestrator.store.session import Transaction, patiently

router = APIRouter(tags=["correlation events"])
MAX_BATCH = 100

Status = Literal["pending", "consumed", "expired"]


class PublishEvent(Shape):
    """What a producer tells; its `producer_event_id` makes telling it again harmless."""

    tenant_id: StrictStr
    event_name: StrictStr
    producer_event_id: StrictStr
    correlation_key: StrictStr
    payload: Any = None


class PublishEvents(Shape):
    """Events that are stored all or none; 100 at the most."""

    events: list[Any]


class EventOutcome(Shape):
    """What became of an event; `satisfied` tells whether somebody had waited for it."""

    event_id: UUID
    duplicate: bool
    satisfied: bool


class EventOutcomes(Shape):
    """What became of some events, in their order."""

    outcomes: list[EventOutcome]


class EventView(Shape):
    """A stored event."""

    event_id: UUID
    tenant_id: str
    event_name: str
    producer_event_id: str
    correlation_key: str
    payload: Any
    status: Status
    created_at: datetime


@router.post("/events", status_code=201, responses=known_or_new(EventOutcome), openapi_extra=accepts(PublishEvent))
def publish_event(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Store an event; 200 with the first one's id when its producer has told it before."""
    event = _checked(serving, caller, body.read(PublishEvent))
    (outcome,) = patiently(lambda: _stored(serving, [event]))
    return Json(outcome, status_code=200 if outcome["duplicate"] else 201)


@router.post("/events/batch", responses={200: {"model": EventOutcomes}}, openapi_extra=accepts(PublishEvents))
def publish_events(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Store events, all or none."""
    entries = body.read(PublishEvents).events
    if not 1 <= len(entries) <= MAX_BATCH:
        raise InvalidArgument(f"events must have 1 to {MAX_BATCH} entries")
    events = [_checked(serving, caller, _entry(index, entry)) for index, entry in enumerate(entries)]
    return Json({"outcomes": patiently(lambda: _stored(serving, events))})


@router.get("/events", responses={200: {"model": list[EventView]}})
def list_events(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    status: Status | None = None,
    event_name: str | None = None,
    correlation_key: str | None = None,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """List events of a tenant, the newest first."""
    tenant = caller.narrowed(tenant_id)
    if not tenant:
        raise InvalidArgument("tenant_id is required")
    wanted = Wanted(tenant_id=tenant, status=status, event_name=event_name, correlation_key=correlation_key)
    with serving.store.reading(tenant) as tx:
        found = correlation_events.find(tx, wanted, offset=offset, limit=min(limit, MAX_LISTED))
    return Json([_view(event) for event in found])


@router.get("/events/{id}", responses={200: {"model": EventView}})
def read_event(serving: Serving, caller: CallerDependency, event_id: Annotated[UUID, Path(alias="id")]) -> Response:
    """Read an event."""
    with serving.store.reading(caller.tenant) as tx:
        found = correlation_events.get(tx, event_id, caller.tenant)
    if found is None:
        raise NotFound(f"event {event_id}")
    return Json(_view(found))


def _entry(index: int, entry: Any) -> PublishEvent:
    try:
        return shaped(entry, PublishEvent)
    except Rejection as rejection:
        raise Rejection(rejection.status, f"events[{index}]: {rejection.text}") from rejection


def _checked(serving: Services, caller: Caller, request: PublishEvent) -> NewEvent:
    for name in ("tenant_id", "event_name", "producer_event_id", "correlation_key"):
        check_name(name, getattr(request, name))
    caller.claim_tenant(request.tenant_id)
    return NewEvent(id=serving.engine.new_id(), **request.model_dump())


def _stored(serving: Services, events: list[NewEvent]) -> list[dict[str, Any]]:
    with serving.store.transaction() as tx:
        # In the order of the key that two batches may share, or each could wait for the other.
        order = sorted(range(len(events)), key=lambda index: (events[index].tenant_id, events[index].producer_event_id))
        outcomes = {index: _outcome(tx, events[index]) for index in order}
    return [outcomes[index] for index in range(len(events))]


def _outcome(tx: Transaction, event: NewEvent) -> dict[str, Any]:
    first = correlation_events.insert(tx, event)
    return {"event_id": first or event.id, "duplicate": first is not None, "satisfied": False}


def _view(event: CorrelationEvent) -> dict[str, Any]:
    members = asdict(event)
    return {"event_id": members.pop("id"), **members}
