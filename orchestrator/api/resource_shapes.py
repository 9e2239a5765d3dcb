"""Shapes of what limits and shares out the use of the outside (contract, api §17.2 to §17.4, §20.4, §20.5)."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, StrictBool, StrictStr

from orchestrator.api.shapes import Natural, Shape, Whole
from orchestrator.store.breakers import COOLDOWN_SECS, FAILURE_THRESHOLD


def _not_blank(written: str) -> str:
    if not written.strip():
        raise ValueError("must not be blank")
    return written


TenantId = Annotated[StrictStr, AfterValidator(_not_blank)]


class Strategy(StrEnum):
    """How one of several resources is chosen."""

    ROUND_ROBIN = "round_robin"
    WEIGHTED = "weighted"
    RANDOM = "random"


class CreatePool(Shape):
    """A pool, under a name of the tenant's."""

    tenant_id: TenantId
    name: StrictStr
    strategy: Strategy = Strategy.ROUND_ROBIN


class PoolView(Shape):
    """A pool of resources."""

    id: UUID
    tenant_id: str
    name: str
    strategy: Strategy
    round_robin_index: int
    created_at: datetime
    updated_at: datetime


class CreateResource(Shape):
    """A resource; a cap of 0 is none, `warmup_start` is a date such as `2026-01-31`."""

    resource_key: StrictStr
    name: StrictStr
    weight: Whole = 1
    daily_cap: Natural = 0
    warmup_start: StrictStr | None = None
    warmup_days: Natural = 0
    warmup_start_cap: Natural = 0


class ChangeResource(Shape):
    """What changes of a resource; a null `warmup_start` takes it away, any other null changes nothing."""

    resource_key: StrictStr | None = None
    name: StrictStr | None = None
    weight: Whole | None = None
    enabled: StrictBool | None = None
    daily_cap: Natural | None = None
    warmup_start: StrictStr | None = None
    warmup_days: Natural | None = None
    warmup_start_cap: Natural | None = None


class ResourceView(Shape):
    """A resource of a pool; its usage counts for its date, in UTC."""

    id: UUID
    pool_id: UUID
    resource_key: str
    name: str
    weight: int
    enabled: bool
    daily_cap: int
    daily_usage: int
    daily_usage_date: date | None
    warmup_start: date | None
    warmup_days: int
    warmup_start_cap: int
    created_at: datetime


class SetRateLimit(Shape):
    """At most `max_count` starts under a key within `window_seconds`."""

    tenant_id: TenantId
    resource_key: StrictStr
    max_count: Whole
    window_seconds: Whole


class RateLimitView(Shape):
    """The limit of a key."""

    tenant_id: str
    resource_key: str
    max_count: int
    window_seconds: int
    created_at: datetime
    updated_at: datetime


class OnOpen(StrEnum):
    """What becomes of steps while the breaker of their handler is open."""

    AUTO = "auto"
    FAIL = "fail"
    DEFER = "defer"


class BreakerState(StrEnum):
    """States of a breaker; a half open one lets one execution show whether the handler works again."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class SetBreaker(Shape):
    """How the breaker of a handler works; without a tenant it is the caller's."""

    handler: StrictStr
    failure_threshold: Whole = FAILURE_THRESHOLD
    cooldown_secs: Whole = COOLDOWN_SECS
    on_open: OnOpen = OnOpen.AUTO
    tenant_id: StrictStr | None = None


class BreakerView(Shape):
    """The breaker of a handler; `opened_at` is left out while it is closed."""

    tenant_id: str
    handler: str
    state: BreakerState
    failure_count: int
    failure_threshold: int
    cooldown_secs: int
    on_open: OnOpen
    opened_at: datetime | None = None
