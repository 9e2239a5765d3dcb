"""Requests about webhooks, push queues and the administration of workers. Source: contract, api §13.7, §13.8, §16."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

from orchestrator.client.calls import DEFAULT_NAME, Id
from orchestrator.client.shapes import Shape
from orchestrator.client.transport import Call

Form = TypeVar("Form", bound=Shape)


class Webhook(Shape):
    """An event that was not sent yet: `pending`, `in_flight` or `parked`."""

    id: UUID
    url: str
    event_type: str
    instance_id: UUID | None = None
    payload: dict[str, Any]
    attempts: int
    last_error: str | None = None
    created_at: datetime
    delivery_id: UUID | None = None
    status: str
    next_attempt_at: datetime | None = None
    claimed_at: datetime | None = None


class RedeliverPreview(Shape):
    """What sending an event again would send."""

    url: str
    event_type: str
    payload_bytes: int
    will_be_signed: bool
    previous_delivery_id: UUID | None = None
    previous_attempts: int
    last_error: str | None = None


class Delivery(Shape):
    """The tries of one delivery together, with the last one's result."""

    delivery_id: UUID
    url: str
    event_type: str
    instance_id: UUID | None = None
    attempts: int
    delivered: bool
    first_attempted_at: datetime
    last_attempted_at: datetime
    last_status_code: int | None = None
    last_error_class: str | None = None


class DeliveryAttempt(Shape):
    """One try to send an event."""

    id: UUID
    delivery_id: UUID
    url: str
    event_type: str
    instance_id: UUID | None = None
    attempt_number: int
    attempted_at: datetime
    duration_ms: int
    success: bool
    status_code: int | None = None
    error_class: str | None = None
    error_excerpt: str | None = None
    signed: bool


class Dispatch(Shape):
    """How the tasks of a queue reach their worker: `poll` or `push`."""

    tenant_id: str
    queue_name: str
    mode: str
    push_url: str | None = None
    sync: bool = False
    created_at: datetime
    updated_at: datetime


class Handlers(Shape):
    """Handlers of the engine itself, and those of living workers."""

    builtin: tuple[str, ...]
    external: tuple[str, ...]


class WorkerCommand(Shape):
    """Something a worker was told."""

    id: UUID
    worker_id: str
    command: str
    payload: Any = None
    created_at: datetime


class VersionPin(Shape):
    """The least version of a worker that gets tasks of a handler."""

    tenant_id: str
    handler_name: str
    min_version: str
    created_at: datetime
    updated_at: datetime


class RoutingRule(Shape):
    """A rule that leads new tasks of a handler to another queue."""

    id: UUID
    tenant_id: str
    handler_name: str
    match_queue: str | None = None
    queue_override: str
    priority: int
    enabled: bool
    created_at: datetime
    updated_at: datetime


# -- webhooks --------------------------------------------------------------------------------------------------------


def webhooks(limit: int) -> Call[tuple[Webhook, ...]]:
    """List events that were not sent yet."""
    return _rows("/webhooks/outbox", Webhook, {"limit": limit})


def preview_redelivery(webhook_id: Id) -> Call[RedeliverPreview]:
    """Say what sending an event again would send."""
    path = f"/webhooks/outbox/{_part(webhook_id)}/redeliver-preview"
    return Call(method="GET", path=path, read=_one(RedeliverPreview), may_repeat=True)


def redeliver(webhook_id: Id) -> Call[UUID]:
    """Send an event now."""
    path = f"/webhooks/outbox/{_part(webhook_id)}/redeliver"
    return Call(method="POST", path=path, read=lambda _status, body: UUID(body["delivery_id"]))


def delete_webhook(webhook_id: Id) -> Call[None]:
    """Drop an event."""
    return Call(method="DELETE", path=f"/webhooks/outbox/{_part(webhook_id)}", read=_nothing)


def deliveries(
    *, url: str | None, event_type: str | None, delivered: bool | None, error_class: str | None, limit: int
) -> Call[tuple[Delivery, ...]]:
    """List deliveries."""
    query = {
        "url": url,
        "event_type": event_type,
        "delivered": None if delivered is None else str(delivered).lower(),
        "error_class": error_class,
        "limit": limit,
    }
    return _rows("/webhooks/deliveries", Delivery, query)


def delivery(delivery_id: Id) -> Call[tuple[DeliveryAttempt, ...]]:
    """Read the tries of a delivery."""
    return _rows(f"/webhooks/deliveries/{_part(delivery_id)}", DeliveryAttempt)


# -- push queues -----------------------------------------------------------------------------------------------------


def configure_dispatch(
    tenant: str | None,
    queue: str,
    *,
    mode: str,
    push_url: str | None,
    secret: str | None,
    second_secret: str | None,
    sync: bool,
) -> Call[Dispatch]:
    """Say how the tasks of a queue reach their worker."""
    body = {
        "tenant_id": tenant or DEFAULT_NAME,
        "queue_name": queue,
        "mode": mode,
        "push_url": push_url,
        "secret": secret,
        "second_secret": second_secret,
        "sync": sync,
    }
    return Call(method="POST", path="/queues/dispatch", body=body, read=_one(Dispatch), may_repeat=True)


def dispatch() -> Call[tuple[Dispatch, ...]]:
    """List what was said of queues."""
    return _rows("/queues/dispatch", Dispatch)


def delete_dispatch(tenant: str | None, queue: str) -> Call[None]:
    """Let a queue be polled only."""
    path = f"/queues/dispatch/{_part(tenant or DEFAULT_NAME)}/{_part(queue)}"
    return Call(method="DELETE", path=path, read=_nothing)


# -- workers ---------------------------------------------------------------------------------------------------------


def handlers() -> Call[Handlers]:
    """List handlers."""
    return Call(method="GET", path="/handlers", read=_one(Handlers), may_repeat=True)


def tell_worker(worker_id: str, command: str, payload: Any) -> Call[WorkerCommand]:
    """Tell a worker something."""
    body = {"worker_id": worker_id, "command": command, "payload": payload}
    return Call(method="POST", path="/workers/commands", body=body, read=_one(WorkerCommand))


def commands(worker_id: str) -> Call[tuple[WorkerCommand, ...]]:
    """List what a worker was told."""
    return _rows(f"/workers/{_part(worker_id)}/commands", WorkerCommand)


def delete_command(command_id: Id) -> Call[None]:
    """Take a command back."""
    return Call(method="DELETE", path=f"/workers/commands/{_part(command_id)}", read=_nothing)


def pin_version(tenant: str | None, handler: str, min_version: str) -> Call[VersionPin]:
    """Let only workers of a version, or a higher one, have tasks of a handler."""
    body = {"tenant_id": tenant or DEFAULT_NAME, "handler_name": handler, "min_version": min_version}
    return Call(method="POST", path="/workers/version-pins", body=body, read=_one(VersionPin), may_repeat=True)


def pins() -> Call[tuple[VersionPin, ...]]:
    """List pins."""
    return _rows("/workers/version-pins", VersionPin)


def unpin_version(tenant: str | None, handler: str) -> Call[None]:
    """Let workers of any version have tasks of a handler."""
    path = f"/workers/version-pins/{_part(tenant or DEFAULT_NAME)}/{_part(handler)}"
    return Call(method="DELETE", path=path, read=_nothing)


def create_rule(tenant: str | None, handler: str, queue_override: str, values: Mapping[str, Any]) -> Call[RoutingRule]:
    """Lead new tasks of a handler to another queue."""
    names = {"tenant_id": tenant or DEFAULT_NAME, "handler_name": handler, "queue_override": queue_override}
    return Call(method="POST", path="/routing-rules", body={**names, **values}, read=_one(RoutingRule))


def rules(handler: str | None) -> Call[tuple[RoutingRule, ...]]:
    """List rules."""
    return _rows("/routing-rules", RoutingRule, {"handler_name": handler})


def rule(rule_id: Id) -> Call[RoutingRule]:
    """Read a rule."""
    return Call(method="GET", path=f"/routing-rules/{_part(rule_id)}", read=_one(RoutingRule), may_repeat=True)


def delete_rule(rule_id: Id) -> Call[None]:
    """Remove a rule."""
    return Call(method="DELETE", path=f"/routing-rules/{_part(rule_id)}", read=_nothing)


def _part(written: Id) -> str:
    return quote(str(written), safe="")


def _one(shape: type[Form]) -> Any:
    return lambda _status, body: shape.model_validate(body)


def _rows(path: str, shape: type[Form], query: Mapping[str, Any] | None = None) -> Call[tuple[Form, ...]]:
    return Call(
        method="GET",
        path=path,
        query=query or {},
        may_repeat=True,
        read=lambda _status, body: tuple(shape.model_validate(each) for each in body),
    )


def _nothing(_status: int, _body: Any) -> None:
    return None
