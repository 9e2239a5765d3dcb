"""What clients send and receive, as pydantic models: requests are checked by them, answers are described by them.

Members nobody knows are ignored, as everywhere on the wire. Source: contract, api §9-§13.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from orchestrator.core.states import InstanceState, NodeState


class Shape(BaseModel):
    """Base of all shapes."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class Priority(StrEnum):
    """Priorities, the least urgent first."""

    LOW = "Low"
    NORMAL = "Normal"
    HIGH = "High"
    CRITICAL = "Critical"


PRIORITIES = tuple(Priority)


def _capitalised(written: object) -> object:
    return written.capitalize() if isinstance(written, str) else written


def _moment(written: object) -> object:
    """Read an RFC 3339 time, in any zone, as UTC."""
    if written is None or isinstance(written, datetime):
        return written
    if not isinstance(written, str) or len(written) < 20 or written[10] not in "Tt ":
        raise ValueError("expected an RFC 3339 time with a zone")
    try:
        moment = datetime.fromisoformat(written.upper())
        in_utc = moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("expected an RFC 3339 time with a zone") from error
    if moment.tzinfo is None:
        raise ValueError("expected an RFC 3339 time with a zone")
    return in_utc


Moment = Annotated[datetime, BeforeValidator(_moment)]
Natural = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Whole = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]


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


class SessionState(StrEnum):
    """States of a session; only an active one takes new instances."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    EXPIRED = "expired"


class CreateSession(Shape):
    """Data that instances are to share, under a key of the tenant's."""

    tenant_id: StrictStr
    session_key: StrictStr
    data: Any = None
    expires_at: Moment | None = None


class SetSessionData(Shape):
    """Data that replace those of a session."""

    data: Any


class SetSessionState(Shape):
    """A state of a session."""

    state: SessionState


class SaveCheckpoint(Shape):
    """A snapshot to be kept beside an instance."""

    checkpoint_data: Any


class PruneCheckpoints(Shape):
    """How many checkpoints, the newest, remain."""

    keep: Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class InstanceFilter(Shape):
    """Which instances a bulk operation is about; all that is left out matches any."""

    tenant_id: StrictStr | None = None
    namespace: StrictStr | None = None
    sequence_id: UUID | None = None
    states: list[InstanceState] | None = None
    metadata: dict[StrictStr, StrictStr] | None = None


class BulkState(Shape):
    """A state for many instances."""

    filter: InstanceFilter
    state: InstanceState


class BulkReschedule(Shape):
    """By how many seconds many scheduled instances are put off; negative brings them forward."""

    filter: InstanceFilter
    offset_secs: StrictInt


class BatchActionKind(StrEnum):
    """What can be done to many instances."""

    RETRY = "retry"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    SIGNAL = "signal"


class BatchAction(Shape):
    """An action for many instances; `signal` needs a `signal_type`."""

    filter: InstanceFilter
    action: BatchActionKind
    signal_type: Any = None
    payload: Any = None
    dry_run: StrictBool = False
    limit: StrictInt = 1000


class SendSignal(Shape):
    """A signal: a word the engine knows, or `{"custom": "<name>"}`."""

    signal_type: Any
    payload: Any = None


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


class Heartbeat(Lease):
    """A sign of life, with a checkpoint for whoever has to take over."""

    checkpoint: Any = None
    checkpoint_seq: Annotated[int, Field(strict=True, ge=0, le=2**64 - 1)] | None = None


# -- answers ---------------------------------------------------------------------------------------------------------


class Id(Shape):
    """The id of what was created."""

    id: UUID


class SequenceCreated(Id):
    """A stored sequence; `warnings` is absent when there are none."""

    warnings: list[str] | None = None


class InstanceCreated(Id):
    """A new instance, or the first one with this idempotency key."""

    deduplicated: bool | None = None


class Count(Shape):
    """How many."""

    count: int


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


class SessionView(Shape):
    """Data that instances share; `expires_at` is left out if there is none."""

    id: UUID
    tenant_id: str
    session_key: str
    data: Any
    state: SessionState
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None


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


class BatchResult(Shape):
    """What a batch action came to."""

    matched: int
    applied: int
    skipped: int
    failed: int
    dry_run: bool


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


class Info(Shape):
    """What runs here."""

    version: str
    storage_schema_version: str
    contract_schema_version: str
    env_label: str
    env_color: str


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
