"""Shapes of the worker protocol.

Source: contract, api §13.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.client.shapes import Context, Shape


class WorkerTask(Shape):
    """A task that was claimed.

    Attributes:
        claim_epoch: Names this claim; a report with another one is refused.
        resume_checkpoint: What an earlier claimer has left.
        idempotency_key: The same in every attempt.
    """

    id: UUID
    instance_id: UUID
    block_id: str
    handler_name: str
    queue_name: str | None = None
    params: Any = None
    context: Context = Context()
    attempt: int
    timeout_ms: int | None = None
    worker_id: str
    claim_epoch: int
    resume_checkpoint: Any = None
    checkpoint_seq: int = 0
    idempotency_key: str


class TaskEvent(Shape):
    """Something that has happened to a task."""

    id: UUID
    task_id: UUID
    claim_epoch: int
    worker_id: str | None = None
    event: str
    reason: str | None = None
    created_at: datetime


class TaskStats(Shape):
    """Tasks by state and by handler, and who holds some."""

    by_state: dict[str, int]
    by_handler: dict[str, dict[str, int]]
    active_workers: tuple[str, ...] = ()


def lease(task: WorkerTask) -> dict[str, Any]:
    """Say in whose name, and under which claim, a report is made."""
    return {"worker_id": task.worker_id, "claim_epoch": task.claim_epoch}
