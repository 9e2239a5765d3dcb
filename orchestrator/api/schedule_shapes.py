"""Shapes of cron schedules: what clients send and what they get (contract, api §14)."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, StrictBool, StrictStr

from orchestrator.api.shapes import Shape
from orchestrator.store.schedules import OverlapPolicy


def _not_blank(written: str) -> str:
    if not written.strip():
        raise ValueError("must not be empty")
    return written


class CreateSchedule(Shape):
    """What is to be started at the moments that an expression names, in the local time of a zone."""

    tenant_id: Annotated[StrictStr, AfterValidator(_not_blank)]
    namespace: StrictStr
    sequence_id: UUID
    cron_expr: StrictStr
    timezone: StrictStr = "UTC"
    metadata: Any = None
    enabled: StrictBool = True
    overlap_policy: OverlapPolicy = OverlapPolicy.ALLOW


class ChangeSchedule(Shape):
    """What changes of a schedule."""

    cron_expr: StrictStr | None = None
    timezone: StrictStr | None = None
    enabled: StrictBool | None = None
    metadata: Any = None
    overlap_policy: OverlapPolicy | None = None


class ScheduleCreated(Shape):
    """A stored schedule and the first moment it fires for."""

    id: UUID
    next_fire_at: datetime | None


class ScheduleView(Shape):
    """A cron schedule."""

    id: UUID
    tenant_id: str
    namespace: str
    sequence_id: UUID
    cron_expr: str
    timezone: str
    enabled: bool
    metadata: Any
    overlap_policy: OverlapPolicy
    skipped_fires: int
    last_skipped_at: datetime | None
    last_triggered_at: datetime | None
    next_fire_at: datetime | None
    created_at: datetime
    updated_at: datetime


class NextFires(Shape):
    """The next moments of a schedule, in UTC, and the zone whose local times they are."""

    timezone: str
    fires: list[datetime]
