"""How tasks of external workers read on the wire, and what they are given (contract, api §13.1)."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from orchestrator.core.model import NodeKey
from orchestrator.core.sections import context_view
from orchestrator.core.states import StepState
from orchestrator.store.leases import HeldTask
from orchestrator.store.task_events import TaskEvent
from orchestrator.task_inputs import EMPTY_RUNTIME, context_of
from sequences.scope import Scope

_TIMED_OUT = {"message": "task timed out (timeout_ms exceeded)", "retryable": True}
_NOT_ENDED = {"completed_at": None, "output": None, "error_message": None, "error_retryable": None}


def open_task_view(task: HeldTask, params: Any, scope: Scope) -> dict[str, Any]:
    """Show an open task with its inputs."""
    step = task.step
    is_claimed = step.state is StepState.CLAIMED
    return {
        "id": step.id,
        "instance_id": task.instance_id,
        "block_id": step.key.block_id,
        "handler_name": step.handler,
        "queue_name": step.queue if step.is_queue_named else None,
        "params": params,
        "context": context_of(scope),
        "attempt": step.attempt,
        "timeout_ms": None if step.timeout is None else round(step.timeout.total_seconds() * 1000),
        "state": "claimed" if is_claimed else "pending",
        "worker_id": step.worker_name,
        "claimed_at": step.claimed_at,
        "heartbeat_at": task.heartbeat_at if is_claimed else None,
        "claim_epoch": step.claim_epoch,
        "resume_checkpoint": task.checkpoint,
        "checkpoint_seq": task.checkpoint_seq,
        **_NOT_ENDED,
        "created_at": step.ready_at or step.entered_at,
        "idempotency_key": _idempotency_key(task.instance_id, step.key),
    }


def _idempotency_key(instance_id: UUID, key: NodeKey) -> str:
    path = ".".join(str(number) for number in key.iteration)
    return f"{instance_id}:{key.block_id}" + (f":{path}" if path else "")


def ended_task_view(row: tuple[Any, ...]) -> dict[str, Any]:
    """Show a task from the history, which keeps the claim but not the inputs."""
    step_id, instance_id, block_id, iteration, handler, queue, attempt, state, outcome, *claim, error, output = row
    worker_name, claim_epoch, claimed_at, ended_at = claim
    failure = error or (_TIMED_OUT if outcome == "timed_out" else {})
    return {
        "id": step_id,
        "instance_id": instance_id,
        "block_id": block_id,
        "handler_name": handler,
        "queue_name": None if queue == "default" else queue,
        "params": None,
        "context": context_view(None, None, dict(EMPTY_RUNTIME)),
        "attempt": attempt,
        "timeout_ms": None,
        "state": state,
        "worker_id": worker_name,
        "claimed_at": claimed_at,
        "heartbeat_at": None,
        "claim_epoch": claim_epoch,
        "resume_checkpoint": None,
        "checkpoint_seq": 0,
        "completed_at": ended_at,
        "output": output,
        "error_message": failure.get("message"),
        "error_retryable": failure.get("retryable"),
        "created_at": made_at_of(step_id) or ended_at,
        "idempotency_key": _idempotency_key(instance_id, NodeKey(block_id, tuple(iteration))),
    }


def task_event_view(task_id: UUID, event: TaskEvent) -> dict[str, Any]:
    """Show what happened to a task; the worker and the reason are left out where there are none."""
    optional = {"worker_id": event.worker, "reason": event.reason}
    return {
        "id": event.id,
        "task_id": task_id,
        "claim_epoch": event.claim_epoch,
        "event": event.event,
        **{name: value for name, value in optional.items() if value is not None},
        "created_at": event.created_at,
    }


def made_at_of(step_id: UUID) -> datetime | None:
    """Read the time an id was made at; None for ids of other makers."""
    return datetime.fromtimestamp((step_id.int >> 80) / 1000, UTC) if step_id.version == 7 else None
