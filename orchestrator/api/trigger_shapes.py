"""Shapes of triggers: what clients send and what they get (contract, api §15, §20.8)."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import StrictBool, StrictStr

from orchestrator.api.shapes import Natural, Shape, Whole


class TriggerType(StrEnum):
    """What may fire a trigger."""

    WEBHOOK = "webhook"
    EVENT = "event"
    NATS = "nats"
    FILE_WATCH = "file_watch"
    ACTIVEPIECES_POLL = "activepieces_poll"


class CreateTrigger(Shape):
    """A name under which flows of a sequence are started; without a version, of its newest one at that moment."""

    slug: StrictStr
    sequence_name: StrictStr
    version: Whole | None = None
    tenant_id: StrictStr
    namespace: StrictStr = "default"
    secret: StrictStr | None = None
    trigger_type: TriggerType = TriggerType.WEBHOOK
    config: Any = None


class ChangeTrigger(Shape):
    """What changes of a trigger; with `overlap_secs` the secret that is replaced is as good for so long (30 days)."""

    enabled: StrictBool | None = None
    config: Any = None
    secret: StrictStr | None = None
    overlap_secs: Natural = 0
    version: Whole | None = None


class TriggerView(Shape):
    """A trigger; a secret is shown as `[REDACTED]`, and how long the one before it is good."""

    slug: str
    sequence_name: str
    version: int | None = None
    tenant_id: str
    namespace: str
    enabled: bool
    secret: str | None = None
    previous_secret_until: datetime | None = None
    trigger_type: TriggerType
    config: Any
    created_at: datetime
    updated_at: datetime


class TriggerFired(Shape):
    """The flow that a trigger has started, or the first one with its idempotency key."""

    instance_id: UUID
    trigger: str
    sequence_name: str
    deduplicated: bool | None = None


class WebhookTaken(Shape):
    """The flow that a public webhook has started, or the first one with its idempotency key."""

    instance_id: UUID
    trigger: str
    deduplicated: bool | None = None
