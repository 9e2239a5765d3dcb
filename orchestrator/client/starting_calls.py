"""Requests about what starts flows: triggers, and cron schedules.

Source: contract, api §14, §15, §20.8.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.client.calls import DEFAULT_NAME, Id
from orchestrator.client.forms import part, read_one, read_rows, send, send_blindly
from orchestrator.client.shapes import Shape
from orchestrator.client.transport import Call


class Trigger(Shape):
    """A name under which flows of a sequence are started from outside.

    Attributes:
        version: Of the sequence; None for the newest one at the moment it fires.
        secret: `[REDACTED]` if there is one.
        previous_secret_until: How long the secret before is as good; None if it is not.
    """

    slug: str
    tenant_id: str
    namespace: str
    sequence_name: str
    version: int | None = None
    enabled: bool
    secret: str | None = None
    previous_secret_until: datetime | None = None
    trigger_type: str
    config: Any = None
    created_at: datetime
    updated_at: datetime


class Fired(Shape):
    """The flow that a trigger has started.

    Attributes:
        deduplicated: The trigger's idempotency key was known, and the flow is the first one's.
    """

    instance_id: UUID
    trigger: str
    sequence_name: str
    deduplicated: bool = False


class Schedule(Shape):
    """A sequence that is started at the moments of a cron expression.

    Attributes:
        skipped_fires: How often it was due and has started nothing.
    """

    id: UUID
    tenant_id: str
    namespace: str
    sequence_id: UUID
    cron_expr: str
    timezone: str
    enabled: bool
    metadata: Any = None
    overlap_policy: str
    skipped_fires: int
    last_skipped_at: datetime | None = None
    last_triggered_at: datetime | None = None
    next_fire_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


class NewSchedule(Shape):
    """A schedule that was just stored, and the first moment it fires for."""

    id: UUID
    next_fire_at: datetime | None = None


# -- triggers --------------------------------------------------------------------------------------------------------


def create_trigger(tenant: str | None, values: Mapping[str, Any]) -> Call[Trigger]:
    """Make a trigger."""
    body = {"tenant_id": tenant or DEFAULT_NAME, **values}
    return send("POST", "/triggers", Trigger, body)


def triggers() -> Call[tuple[Trigger, ...]]:
    """List triggers."""
    return read_rows("/triggers", Trigger)


def trigger(slug: str) -> Call[Trigger]:
    """Read a trigger."""
    return read_one(f"/triggers/{part(slug)}", Trigger)


def change_trigger(slug: str, changes: Mapping[str, Any]) -> Call[Trigger]:
    """Change a trigger."""
    path = f"/triggers/{part(slug)}"
    return send("PATCH", path, Trigger, dict(changes), may_repeat=True)


def delete_trigger(slug: str) -> Call[None]:
    """Remove a trigger."""
    return send_blindly("DELETE", f"/triggers/{part(slug)}")


def fire_trigger(slug: str, payload: Any, secret: str | None) -> Call[Fired]:
    """Start a flow."""
    headers = {} if secret is None else {"x-trigger-secret": secret.encode()}
    path = f"/triggers/{part(slug)}/fire"
    return Call(
        method="POST", path=path, body=payload, headers=headers, read=lambda _status, body: Fired.model_validate(body)
    )


# -- schedules -------------------------------------------------------------------------------------------------------


def create_schedule(tenant: str | None, values: Mapping[str, Any]) -> Call[NewSchedule]:
    """Store a schedule."""
    body = {"tenant_id": tenant or DEFAULT_NAME, **values}
    return send("POST", "/cron", NewSchedule, body)


def schedules() -> Call[tuple[Schedule, ...]]:
    """List schedules."""
    return read_rows("/cron", Schedule)


def schedule(schedule_id: Id) -> Call[Schedule]:
    """Read a schedule."""
    return read_one(f"/cron/{part(schedule_id)}", Schedule)


def change_schedule(schedule_id: Id, changes: Mapping[str, Any]) -> Call[Schedule]:
    """Change a schedule."""
    path = f"/cron/{part(schedule_id)}"
    return send("PUT", path, Schedule, dict(changes), may_repeat=True)


def delete_schedule(schedule_id: Id) -> Call[None]:
    """Remove a schedule."""
    return send_blindly("DELETE", f"/cron/{part(schedule_id)}")


def next_fires(schedule_id: Id, count: int) -> Call[tuple[datetime, ...]]:
    """List the next moments of a schedule."""
    return Call(
        method="GET",
        path=f"/cron/{part(schedule_id)}/next-fires",
        query={"n": count},
        may_repeat=True,
        read=lambda _status, body: tuple(datetime.fromisoformat(each) for each in body["fires"]),
    )
