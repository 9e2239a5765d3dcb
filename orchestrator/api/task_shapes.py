"""Shapes of the protocol of polling workers (contract, api §13)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StrictBool, StrictStr

from orchestrator.api.instance_shapes import Context
from orchestrator.api.shapes import Shape
from orchestrator.core.outcomes import Outcome


class Poll(Shape):
    """A worker asks for tasks of a handler that name no queue."""

    handler_name: StrictStr
    worker_id: StrictStr
    limit: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 1
    version: StrictStr | None = None


class PollQueue(Poll):
    """A worker asks for tasks of a handler on one queue."""

    queue_name: StrictStr


class Lease(Shape):
    """Whose claim a call speaks for; older clients leave out the epoch."""

    worker_id: StrictStr
    claim_epoch: Annotated[int, Field(strict=True, ge=0, le=2**64 - 1)] | None = None


class CompleteTask(Lease):
    """The output of a task."""

    output: Any
    logs: list[Any] | None = None


class FailTask(Lease):
    """The failure of a task; `details` is for the retry policy's codes."""

    message: StrictStr
    retryable: StrictBool = False
    details: dict[str, Any] | None = None
    logs: list[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCall:
    """A call in which a worker speaks for a task.

    Args:
        act: What the worker wants to do.
    """

    task_id: UUID
    lease: Lease
    act: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport(TaskCall):
    """A call in which a worker says what became of a task."""

    outcome: Outcome
    logs: list[Any] | None = None


class Heartbeat(Lease):
    """A sign of life, with a checkpoint for whoever has to take over."""

    checkpoint: Any = None
    checkpoint_seq: Annotated[int, Field(strict=True, ge=0, le=2**64 - 1)] | None = None


class WorkerTask(Shape):
    """A step in the hands of external workers."""

    id: UUID
    instance_id: UUID
    block_id: str
    handler_name: str
    queue_name: str | None
    params: Any
    context: Context
    attempt: int
    timeout_ms: int | None
    state: str
    worker_id: str | None
    claimed_at: datetime | None
    heartbeat_at: datetime | None
    claim_epoch: int
    resume_checkpoint: Any
    checkpoint_seq: int
    completed_at: datetime | None
    output: Any
    error_message: str | None
    error_retryable: bool | None
    created_at: datetime
    idempotency_key: str


class TaskEventView(Shape):
    """Something that happened to a task; the worker and the reason are left out where there are none."""

    id: UUID
    task_id: UUID
    claim_epoch: int
    worker_id: str | None = None
    event: str
    reason: str | None = None
    created_at: datetime


class CheckpointSequence(Shape):
    """The number the next checkpoint must carry."""

    checkpoint_seq: int


class TaskStats(Shape):
    """Tasks by state and handler, and who holds claims."""

    by_state: dict[str, int]
    by_handler: dict[str, dict[str, int]]
    active_workers: list[str]


class WorkerView(Shape):
    """A worker that has been heard of."""

    worker_id: str
    handlers: list[str]
    queues: list[str]
    version: str | None
    last_seen_at: datetime
    alive: bool
    in_flight: int
