"""Shapes of events on their way outside, and of the tries to send them (contract, api §16)."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from orchestrator.api.shapes import Shape
from orchestrator.posting import ErrorClass


class OutboxEntry(Shape):
    """An event that was not sent yet. What is not known is left out."""

    id: UUID
    url: str
    event_type: str
    instance_id: UUID | None = None
    payload: dict[str, Any]
    attempts: int
    last_error: str | None = None
    created_at: datetime
    delivery_id: UUID | None = None
    status: Literal["pending", "in_flight", "parked"]
    next_attempt_at: datetime | None = None
    claimed_at: datetime | None = None


class Redelivered(Shape):
    """An event that was sent."""

    redelivered: bool
    delivery_id: UUID


class RedeliverPreview(Shape):
    """What sending an event again would do."""

    url: str
    event_type: str
    payload_bytes: int
    will_be_signed: bool
    previous_delivery_id: UUID | None
    previous_attempts: int
    last_error: str | None


class DeliverySummary(Shape):
    """The tries of one delivery together, with the last one's result. What is not known is left out."""

    delivery_id: UUID
    url: str
    event_type: str
    instance_id: UUID | None = None
    attempts: int
    delivered: bool
    first_attempted_at: datetime
    last_attempted_at: datetime
    last_status_code: int | None = None
    last_error_class: ErrorClass | None = None


class DeliveryAttempt(Shape):
    """One try. What is not known is left out."""

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
    error_class: ErrorClass | None = None
    error_excerpt: str | None = None
    signed: bool
