"""Events on their way outside, for administrators (contract, api §16)."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path
from starlette.responses import Response

from orchestrator.api.addresses import Limit
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.services import Serving
from orchestrator.api.webhook_shapes import (
    DeliveryAttempt,
    DeliverySummary,
    OutboxEntry,
    Redelivered,
    RedeliverPreview,
)
from orchestrator.errors import InvalidArgument
from orchestrator.posting import ErrorClass
from orchestrator.store.webhooks import DeliveryFilter, Webhook
from sequences.json_values import json_bytes

router = APIRouter(tags=["webhooks"])
MAX_LISTED = 1000

WebhookId = Annotated[UUID, Path(alias="id")]


@router.get("/webhooks/outbox", responses={200: {"model": list[OutboxEntry]}})
def list_outbox(serving: Serving, caller: CallerDependency, limit: Limit = 100) -> Response:
    """List events that were not sent yet, the oldest first: those that wait, those in flight, those given up."""
    found = serving.outbox.find(min(limit, MAX_LISTED), tenant=caller.tenant)
    return Json([_entry(webhook) for webhook in found])


@router.post("/webhooks/outbox/{id}/redeliver", responses={200: {"model": Redelivered}})
def redeliver(serving: Serving, caller: CallerDependency, webhook_id: WebhookId) -> Response:
    """Send an event now; 502 if it is not taken, and it stays."""
    delivery_id = serving.outbox.redeliver(webhook_id, tenant=caller.tenant)
    return Json({"redelivered": True, "delivery_id": delivery_id})


@router.get("/webhooks/outbox/{id}/redeliver-preview", responses={200: {"model": RedeliverPreview}})
def preview_redelivery(serving: Serving, caller: CallerDependency, webhook_id: WebhookId) -> Response:
    """Say what sending an event again would send."""
    webhook = serving.outbox.get(webhook_id, tenant=caller.tenant)
    return Json(
        {
            "url": webhook.url,
            "event_type": webhook.event_type,
            "payload_bytes": len(json_bytes(webhook.payload)),
            "will_be_signed": serving.outbox.is_signing,
            "previous_delivery_id": webhook.delivery_id,
            "previous_attempts": webhook.attempts,
            "last_error": webhook.last_error,
        }
    )


@router.delete("/webhooks/outbox/{id}", status_code=204)
def delete_webhook(serving: Serving, caller: CallerDependency, webhook_id: WebhookId) -> Response:
    """Drop an event that was not sent."""
    serving.outbox.delete(webhook_id, tenant=caller.tenant)
    return Response(status_code=204)


@router.get("/webhooks/deliveries", responses={200: {"model": list[DeliverySummary]}})
def list_deliveries(
    serving: Serving,
    caller: CallerDependency,
    url: str | None = None,
    event_type: str | None = None,
    delivered: bool | None = None,
    error_class: str | None = None,
    limit: Limit = 100,
) -> Response:
    """List deliveries of the last week, the one tried last first."""
    if error_class is not None and error_class not in set(ErrorClass):
        raise InvalidArgument(f"unknown error class {error_class!r}")
    which = DeliveryFilter(url=url, event_type=event_type, delivered=delivered, error_class=error_class)
    found = serving.outbox.deliveries(which, min(limit, MAX_LISTED), tenant=caller.tenant)
    return Json([_known(asdict(each)) for each in found])


@router.get("/webhooks/deliveries/{delivery_id}", responses={200: {"model": list[DeliveryAttempt]}})
def read_delivery(serving: Serving, caller: CallerDependency, delivery_id: UUID) -> Response:
    """Show the tries of one delivery, in order."""
    found = serving.outbox.attempts_of(delivery_id, tenant=caller.tenant)
    return Json([_known(asdict(each)) for each in found])


def _entry(webhook: Webhook) -> dict[str, Any]:
    entry = asdict(webhook)
    due_at = entry.pop("due_at")
    return _known({**entry, "next_attempt_at": due_at if webhook.status == "pending" else None})


def _known(view: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in view.items() if value is not None}
