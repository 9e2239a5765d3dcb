"""Shapes of what administers workers (contract, api §13.7)."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StrictBool, StrictStr

from orchestrator.api.resource_shapes import TenantId
from orchestrator.api.shapes import Shape

Priority = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]


class Handlers(Shape):
    """Handlers of the engine itself, and those of living workers."""

    builtin: list[str]
    external: list[str]


class TellWorker(Shape):
    """Something a worker is to do."""

    worker_id: StrictStr
    command: Literal["drain", "reload", "ping", "place"]
    payload: Any = None


class WorkerCommand(Shape):
    """Something a worker was told; it stays until it is deleted."""

    id: UUID
    worker_id: str
    command: Literal["drain", "reload", "ping", "place"]
    payload: Any
    created_at: datetime


class PinVersion(Shape):
    """The least version of a worker that gets tasks of a handler."""

    tenant_id: TenantId
    handler_name: StrictStr
    min_version: StrictStr


class VersionPin(Shape):
    """The least version of a worker that gets tasks of a handler."""

    tenant_id: str
    handler_name: str
    min_version: str
    created_at: datetime
    updated_at: datetime


class CreateRoutingRule(Shape):
    """A rule that leads new tasks of a handler, on one queue or on any, to another queue."""

    tenant_id: TenantId
    handler_name: StrictStr
    match_queue: StrictStr | None = None
    queue_override: StrictStr
    priority: Priority = 0
    enabled: StrictBool = True


class RoutingRule(Shape):
    """A rule; of those that fit a task the one of the highest priority counts, of several such the oldest."""

    id: UUID
    tenant_id: str
    handler_name: str
    match_queue: str | None
    queue_override: str
    priority: int
    enabled: bool
    created_at: datetime
    updated_at: datetime
