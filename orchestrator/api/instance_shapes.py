"""Shapes of instances, and of what is read and changed of them (contract, api §10, §11)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StrictStr

from orchestrator.api.shapes import Count, Id, Moment, Shape, Whole
from orchestrator.core.states import InstanceState, NodeState


class Priority(StrEnum):
    """Priorities, the least urgent first."""

    LOW = "Low"
    NORMAL = "Normal"
    HIGH = "High"
    CRITICAL = "Critical"


PRIORITIES = tuple(Priority)


def _capitalised(written: object) -> object:
    return written.capitalize() if isinstance(written, str) else written


class AuditEntry(Shape):
    """One entry of the audit section of a context."""

    timestamp: Any = None
    event: Any = None
    details: Any = None


class Context(Shape):
    """The context of an instance; a section that is missing or null is empty."""

    data: Any = None
    config: Any = None
    audit: list[AuditEntry] | None = None
    runtime: dict[str, Any] | None = None


class Budget(Shape):
    """Limits that pause an instance when one is exceeded."""

    max_input_tokens: StrictInt | None = None
    max_output_tokens: StrictInt | None = None
    max_total_tokens: StrictInt | None = None
    max_steps: StrictInt | None = None
    max_cost_microunits: StrictInt | None = None
    max_wall_time_ms: StrictInt | None = None
    max_external_calls: StrictInt | None = None
    max_bytes_transferred: StrictInt | None = None


class StartInstance(Shape):
    """An instance of a sequence found by name; without a tenant it is the caller's."""

    tenant_id: StrictStr | None = None
    namespace: StrictStr | None = None
    version: Whole | None = None
    priority: Annotated[Priority, BeforeValidator(_capitalised)] = Priority.NORMAL
    timezone: StrictStr = "UTC"
    metadata: Any = None
    context: Context | None = None
    dry_run: StrictBool = False
    dry_run_auto_approve: StrictBool = False
    next_fire_at: Moment | None = None
    concurrency_key: StrictStr | None = None
    max_concurrency: Whole | None = None
    idempotency_key: StrictStr | None = None
    budget: Budget | None = None
    session_id: UUID | None = None
    session_key: StrictStr | None = None


class CreateInstance(StartInstance):
    """An instance of one version of a sequence."""

    sequence_id: UUID
    tenant_id: StrictStr
    namespace: StrictStr


class CreateBatch(Shape):
    """Instances that are created all or none; 10,000 at the most."""

    instances: list[Any]


class SetState(Shape):
    """A state set by hand."""

    state: InstanceState
    next_fire_at: Moment | None = None


class SetContext(Shape):
    """A context that replaces data and config."""

    context: Context


class SaveCheckpoint(Shape):
    """A snapshot to be kept beside an instance."""

    checkpoint_data: Any


class PruneCheckpoints(Shape):
    """How many checkpoints, the newest, remain."""

    keep: Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class SendSignal(Shape):
    """A signal: a word the engine knows, or `{"custom": "<name>"}`."""

    signal_type: Any
    payload: Any = None


class InstanceCreated(Id):
    """A new instance, or the first one with this idempotency key."""

    deduplicated: bool | None = None


class BatchCreated(Count):
    """How many instances are new; all of them, and those that were there already, if ids were asked for."""

    ids: list[UUID] | None = None
    deduplicated: list[UUID] | None = None


class SignalAccepted(Shape):
    """A signal that was queued."""

    signal_id: UUID


class Retried(Shape):
    """A failed instance that is open again."""

    id: UUID
    state: InstanceState


class TaskInstance(Shape):
    """One execution of a sequence."""

    id: UUID
    sequence_id: UUID
    tenant_id: str
    namespace: str
    state: InstanceState
    next_fire_at: datetime | None
    priority: Priority
    timezone: str
    metadata: Any
    context: Context
    budget: Budget | None = None
    concurrency_key: str | None
    max_concurrency: int | None
    idempotency_key: str | None
    session_id: UUID | None
    parent_instance_id: UUID | None
    created_at: datetime
    updated_at: datetime


class InstancePage(Shape):
    """One page of instances."""

    items: list[TaskInstance]
    has_more: bool


class Checkpoint(Shape):
    """A snapshot kept beside an instance."""

    id: UUID
    instance_id: UUID
    checkpoint_data: Any
    created_at: datetime


class BlockOutput(Shape):
    """A stored output of a block."""

    id: UUID
    instance_id: UUID
    block_id: str
    output: Any
    output_ref: str | None
    output_size: int
    attempt: int
    created_at: datetime


class TreeNode(Shape):
    """The state of one block in one instance."""

    id: UUID
    instance_id: UUID
    block_id: str
    parent_id: UUID | None
    block_type: str
    branch_index: int | None
    state: NodeState
    started_at: datetime | None
    completed_at: datetime | None


class AuditRow(Shape):
    """One change of an instance's state."""

    id: UUID
    instance_id: UUID
    tenant_id: str
    event_type: str
    from_state: str | None = None
    to_state: str | None = None
    block_id: str | None = None
    details: Any
    created_at: datetime


class TimelineEntry(Shape):
    """One stored row of a block; a sentinel is one that is no output of a handler."""

    block_id: str
    attempt: int
    completed_at: datetime
    output: Any = None
    output_ref: str | None = None
    is_sentinel: bool


class Timeline(Shape):
    """What has happened in an instance, oldest first."""

    instance: TaskInstance
    state_transitions: list[AuditRow]
    entries: list[TimelineEntry]
    offset: int
    limit: int
    has_more: bool


class Attempt(Shape):
    """One execution of a step, from the history."""

    block_id: str
    iteration: list[int]
    attempt: int
    handler: str
    queue: str
    outcome: str
    worker_id: UUID | None
    claimed_at: datetime | None
    ended_at: datetime
    error: Any


class ApprovalItem(Shape):
    """An open human gate."""

    instance_id: UUID
    tenant_id: str
    namespace: str
    sequence_id: UUID
    sequence_name: str
    block_id: str
    prompt: str
    choices: list[dict[str, str]]
    store_as: str | None
    timeout_seconds: float | None
    escalation_handler: str | None
    waiting_since: datetime
    deadline: datetime | None
    metadata: Any
    allow_comment: bool


class Approvals(Shape):
    """Open human gates; `total` counts the items of this answer."""

    items: list[ApprovalItem]
    total: int


class EffectView(Shape):
    """What a step has done outside of its flow."""

    id: UUID
    tenant_id: str
    instance_id: UUID
    block_id: str
    kind: str
    state: str
    destination_fingerprint: str
    idempotency_key: str | None
    request_sha256: str
    provider_receipt_id: str | None
    attempt: int
    created_at: datetime
    updated_at: datetime
