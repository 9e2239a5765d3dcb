"""What the server answers, as frozen values. Members nobody knows are ignored, so a newer server can be talked to.

Times are aware and in UTC. Source: contract, api §9-§13.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from orchestrator.core.states import InstanceState, NodeState

Item = TypeVar("Item")


class Shape(BaseModel):
    """Base of all shapes."""

    model_config = ConfigDict(extra="ignore", frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    """Part of a list; `has_more` says whether a next part exists."""

    items: tuple[Item, ...]
    has_more: bool


class Started(Shape):
    """An accepted instance.

    Attributes:
        is_duplicate: The idempotency key given by the caller was known, and `id` is the first instance's.
    """

    id: UUID
    is_duplicate: bool = False


class StoredSequence(Shape):
    """A stored definition.

    Attributes:
        warnings: What is allowed and probably a mistake, such as a misspelt handler.
        is_new: False when shorthand said what its newest version says already.
    """

    id: UUID
    warnings: tuple[str, ...] = ()
    is_new: bool = True


class Definition(Shape):
    """One version of a sequence.

    Attributes:
        document: The whole canonical document.
    """

    id: UUID
    tenant_id: str
    namespace: str
    name: str
    version: int
    deprecated: bool = False
    created_at: datetime | None = None
    document: dict[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Definition":
        """Read a document."""
        return cls.model_validate({**document, "document": dict(document)})


class Runtime(Shape):
    """Where an instance stands."""

    current_step: str | None = None
    attempt: int = 0
    started_at: datetime | None = None
    current_step_started_at: datetime | None = None
    total_steps_executed: int = 0


class Context(Shape):
    """What steps read and write: `data` changes, `config` stays."""

    data: Any = None
    config: Any = None
    runtime: Runtime = Runtime()


class Instance(Shape):
    """One execution of a sequence.

    Attributes:
        next_fire_at: When it goes on by itself; None while it works, waits for others or has ended.
        parked_reason: Why the engine stopped it for a human; None if it did not.
    """

    id: UUID
    sequence_id: UUID
    tenant_id: str
    namespace: str
    state: InstanceState
    next_fire_at: datetime | None = None
    priority: str = "Normal"
    timezone: str = "UTC"
    metadata: Any = None
    context: Context = Context()
    idempotency_key: str | None = None
    parent_instance_id: UUID | None = None
    parked_reason: str | None = None
    created_at: datetime
    updated_at: datetime

    @property
    def is_settled(self) -> bool:
        """Whether it has ended, or was parked: nothing more happens unless somebody does something."""
        return self.state.is_terminal or (self.state is InstanceState.PAUSED and self.parked_reason is not None)

    @property
    def data(self) -> Any:
        """The data section of its context."""
        return self.context.data


class OutputRow(Shape):
    """A stored output; a block that ran several times has several."""

    id: UUID
    instance_id: UUID
    block_id: str
    output: Any
    output_size: int = 0
    attempt: int = 0
    created_at: datetime


class TreeNode(Shape):
    """The state of one block in one instance; the nodes of a tree come parents first."""

    id: UUID
    instance_id: UUID
    block_id: str
    parent_id: UUID | None = None
    block_type: str
    branch_index: int | None = None
    state: NodeState
    started_at: datetime | None = None
    completed_at: datetime | None = None


class AuditRow(Shape):
    """A change of state, or an action on an instance."""

    id: UUID
    event_type: str
    from_state: str | None = None
    to_state: str | None = None
    block_id: str | None = None
    details: Any = None
    created_at: datetime


class Attempt(Shape):
    """One execution of a step, from the history.

    Attributes:
        iteration: Positions in the loops around the block, the outermost first.
        attempt: From 0.
    """

    block_id: str
    iteration: tuple[int, ...] = ()
    attempt: int
    handler: str
    queue: str
    outcome: str
    worker_id: UUID | None = None
    claimed_at: datetime | None = None
    ended_at: datetime
    error: Any = None


class Choice(Shape):
    """An answer a person may choose."""

    label: str
    value: str


class Approval(Shape):
    """An open human gate.

    Attributes:
        choices: Values that `answer` takes; any other one is ignored by the engine.
    """

    instance_id: UUID
    sequence_name: str
    block_id: str
    prompt: str = ""
    choices: tuple[Choice, ...] = ()
    allow_comment: bool = False
    waiting_since: datetime
    deadline: datetime | None = None


class QueueView(Shape):
    """The open steps of a queue.

    Attributes:
        states: How many steps, by the state they are in; only states with steps.
        oldest_ready_at: Since when the longest waiting ready step could run; None if none is ready.
        workers: Living workers that serve the queue.
        slots: Steps these can run at once.
    """

    queue: str
    states: dict[str, int]
    oldest_ready_at: datetime | None = None
    workers: int = 0
    slots: int = 0


class WorkerView(Shape):
    """A worker that has been heard of."""

    worker_id: str
    handlers: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    last_seen_at: datetime
    alive: bool
    in_flight: int = 0


class Task(Shape):
    """A step in the hands of external workers."""

    id: UUID
    instance_id: UUID
    block_id: str
    handler_name: str
    queue_name: str | None = None
    attempt: int = 0
    state: str
    worker_id: str | None = None
    claimed_at: datetime | None = None
    created_at: datetime
    error_message: str | None = None


class ApiKey(Shape):
    """A key of a tenant.

    Attributes:
        last_used_at: Exact to about a minute; None if it was never used.
        expires_at: From when on it opens nothing; None for never.
    """

    id: str
    tenant_id: str
    name: str = ""
    capabilities: tuple[str, ...] = ()
    created_at: datetime
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    revoked: bool = False


class NewApiKey(Shape):
    """A key that was made just now.

    Attributes:
        secret: What its holder sends; it cannot be read again.
    """

    id: str
    tenant_id: str
    name: str = ""
    capabilities: tuple[str, ...] = ()
    secret: str
    created_at: datetime
    expires_at: datetime | None = None


class UsageRow(Shape):
    """What one model has used.

    Attributes:
        cost_usd: An estimate; None for a model without a known price.
    """

    kind: str
    model: str
    events: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = None


class UsageGroup(Shape):
    """What one step, instance, sequence or provider has used.

    Attributes:
        key: Its id or name; None for an unknown provider.
        sequence_id: Whose step or instance it is.
    """

    key: str | None = None
    sequence_id: UUID | None = None
    events: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = None


class Usage(Shape):
    """What the models of a tenant have used between two moments; costs are estimates."""

    tenant: str
    start: datetime
    end: datetime
    usage: tuple[UsageRow, ...]
    total_cost_usd: float
    groups: tuple[UsageGroup, ...] = ()
