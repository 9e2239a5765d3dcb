"""Requests about webhooks, push queues and the administration of workers. Source: contract, api §13.7, §13.8, §16."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.client.calls import DEFAULT_NAME, Id
from orchestrator.client.forms import part, read_one, read_rows, send, send_blindly
from orchestrator.client.shapes import Shape
from orchestrator.client.transport import Call


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
    return read_rows("/webhooks/outbox", Webhook, {"limit": limit})


def preview_redelivery(webhook_id: Id) -> Call[RedeliverPreview]:
    """Say what sending an event again would send."""
    path = f"/webhooks/outbox/{part(webhook_id)}/redeliver-preview"
    return read_one(path, RedeliverPreview)


def redeliver(webhook_id: Id) -> Call[UUID]:
    """Send an event now."""
    path = f"/webhooks/outbox/{part(webhook_id)}/redeliver"
    return Call(method="POST", path=path, read=lambda _status, body: UUID(body["delivery_id"]))


def delete_webhook(webhook_id: Id) -> Call[None]:
    """Drop an event."""
    return send_blindly("DELETE", f"/webhooks/outbox/{part(webhook_id)}")


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
    return read_rows("/webhooks/deliveries", Delivery, query)


def delivery(delivery_id: Id) -> Call[tuple[DeliveryAttempt, ...]]:
    """Read the tries of a delivery."""
    return read_rows(f"/webhooks/deliveries/{part(delivery_id)}", DeliveryAttempt)


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
    return send("POST", "/queues/dispatch", Dispatch, body, may_repeat=True)


def dispatch() -> Call[tuple[Dispatch, ...]]:
    """List what was said of queues."""
    return read_rows("/queues/dispatch", Dispatch)


def delete_dispatch(tenant: str | None, queue: str) -> Call[None]:
    """Let a queue be polled only."""
    path = f"/queues/dispatch/{part(tenant or DEFAULT_NAME)}/{part(queue)}"
    return send_blindly("DELETE", path)


# -- workers ---------------------------------------------------------------------------------------------------------


def handlers() -> Call[Handlers]:
    """List handlers."""
    return read_one("/handlers", Handlers)


def tell_worker(worker_id: str, command: str, payload: Any) -> Call[WorkerCommand]:
    """Tell a worker something."""
    body = {"worker_id": worker_id, "command": command, "payload": payload}
    return send("POST", "/workers/commands", WorkerCommand, body)


def commands(worker_id: str) -> Call[tuple[WorkerCommand, ...]]:
    """List what a worker was told."""
    return read_rows(f"/workers/{part(worker_id)}/commands", WorkerCommand)


def delete_command(command_id: Id) -> Call[None]:
    """Take a command back."""
    return send_blindly("DELETE", f"/workers/commands/{part(command_id)}")


def pin_version(tenant: str | None, handler: str, min_version: str) -> Call[VersionPin]:
    """Let only workers of a version, or a higher one, have tasks of a handler."""
    body = {"tenant_id": tenant or DEFAULT_NAME, "handler_name": handler, "min_version": min_version}
    return send("POST", "/workers/version-pins", VersionPin, body, may_repeat=True)


def pins() -> Call[tuple[VersionPin, ...]]:
    """List pins."""
    return read_rows("/workers/version-pins", VersionPin)


def unpin_version(tenant: str | None, handler: str) -> Call[None]:
    """Let workers of any version have tasks of a handler."""
    path = f"/workers/version-pins/{part(tenant or DEFAULT_NAME)}/{part(handler)}"
    return send_blindly("DELETE", path)


def create_rule(tenant: str | None, handler: str, queue_override: str, values: Mapping[str, Any]) -> Call[RoutingRule]:
    """Lead new tasks of a handler to another queue."""
    names = {"tenant_id": tenant or DEFAULT_NAME, "handler_name": handler, "queue_override": queue_override}
    return send("POST", "/routing-rules", RoutingRule, {**names, **values})


def rules(handler: str | None) -> Call[tuple[RoutingRule, ...]]:
    """List rules."""
    return read_rows("/routing-rules", RoutingRule, {"handler_name": handler})


def rule(rule_id: Id) -> Call[RoutingRule]:
    """Read a rule."""
    return read_one(f"/routing-rules/{part(rule_id)}", RoutingRule)


def delete_rule(rule_id: Id) -> Call[None]:
    """Remove a rule."""
    return send_blindly("DELETE", f"/routing-rules/{part(rule_id)}")
