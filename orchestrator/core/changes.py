"""What a decision changes. The store writes these values; the in-memory slice takes over the same values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.letters import Letter
from orchestrator.core.model import Instance, Iteration, KeptSignal, Node, NodeKey, Step
from orchestrator.core.outcomes import LogLine
from orchestrator.core.plan import Injection, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class InstancePut:
    """The instance row reads as given; its version has risen by one.

    Args:
        formerly: When it was changed before; None if that does not matter.
    """

    instance: Instance
    formerly: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePut:
    """The node row reads as given."""

    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPut:
    """The open step reads as given."""

    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGone:
    """The step is no longer open."""

    key: NodeKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerPut:
    """Look at the node when `due_at` has come."""

    key: NodeKey
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerGone:
    """The node no longer waits for a moment."""

    key: NodeKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TimersShifted:
    """The timers of some nodes, as far as there are any, are due later by `by`, or earlier if that is negative."""

    keys: tuple[NodeKey, ...]
    by: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputAdded:
    """A new output row; rows are never changed."""

    id: UUID
    key: NodeKey
    lane: Iteration
    output: Any
    attempt: int
    created_at: datetime
    ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsTrimmed:
    """Of each of some blocks only the newest output rows stay.

    Args:
        lane: Rows of this lane and of the lanes below it count as one series; others are not touched.
        keep: Rows of each block that stay, at least 1.
        since: Rows of this iteration and later ones are in use and stay; None if no older ones are.
    """

    blocks: tuple[str, ...]
    lane: Iteration
    keep: int
    since: Iteration | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRowsRemoved:
    """The rows that record failures of the former round are dropped by a retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocksForgotten:
    """Nodes, outputs and captured items of some blocks are gone. Comes before all that is written of them anew.

    Args:
        rows: How many output rows that were.
    """

    blocks: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecorded:
    """One execution has ended: the history row of an attempt."""

    id: UUID
    key: NodeKey
    step_id: UUID
    attempt: int
    handler: str
    queue: str
    outcome: str
    token: UUID | None
    worker_id: UUID | None
    claimed_at: datetime | None
    ended_at: datetime
    error: Mapping[str, Any] | None = None
    cache_key: str | None = None
    worker_name: str | None = None
    claim_epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionRecorded:
    """The audit row of a move of the instance, or of another event; `event` names its kind."""

    id: UUID
    from_state: str | None
    to_state: str | None
    block_id: str | None
    details: Mapping[str, Any]
    created_at: datetime
    event: str = "state_transition"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPut:
    """The data and config sections read as given."""

    data: Any
    config: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePut:
    """One key of the key-value state reads as given."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StateGone:
    """One key of the key-value state is removed."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsCaptured:
    """The collection of a `for_each`, as it was when the block started."""

    key: NodeKey
    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalKept:
    """A custom signal waits for its gate."""

    signal: KeptSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalConsumed:
    """A kept signal was used, or swallowed by its gate."""

    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionWritten:
    """`value` is written at a path below the data of a session; no path replaces them.

    It says what to write and not what the data then are: other instances write them too, and what is written is folded
    into the newest data, under the session's lock.
    """

    session_id: UUID
    path: tuple[str, ...]
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMemberGone:
    """A top-level member of a session's data is removed; an absent one is fine."""

    session_id: UUID
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    """A snapshot is kept beside the instance; of the older ones, as many that `keep` remain in all (None: all)."""

    id: UUID
    data: Any
    created_at: datetime
    keep: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataMerged:
    """The engine's own documented keys are laid over the client's metadata."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionAdded:
    """Blocks have joined the root list of the instance: its plan is another from here on."""

    injection: Injection


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCreated:
    """A child exists and is due at once; what it inherits beside its hot row is its parent's, as stored."""

    child: Instance
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterWritten:
    """A letter to another instance waits to be delivered."""

    letter: Letter


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterOpened:
    """A letter to this instance was read and is done with."""

    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReplaced:
    """The instance has gone over to another definition; what was injected is in its plan again."""

    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionHeld:
    """The instance needs its definition from here on: it was reopened, or has gone over to another definition.

    The definition must be there when this is committed, and is not deleted before.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookQueued:
    """An event is to be told to one address outside, after this is committed.

    Args:
        data: What the event says beside its name, its instance and its time.
    """

    id: UUID
    url: str
    event_type: str
    data: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLogged:
    """A handler has logged a line while it ran."""

    id: UUID
    block_id: str
    line: LogLine


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecorded:
    """A finished step has reported what a model has used for it.

    Args:
        model: `unknown` if the report does not say.
        provider: None if the report does not say.
    """

    id: UUID
    block_id: str
    kind: str
    model: str
    provider: str | None
    input_tokens: int
    output_tokens: int
    created_at: datetime


Change = (
    InstancePut
    | NodePut
    | StepPut
    | StepGone
    | TimerPut
    | TimerGone
    | TimersShifted
    | OutputAdded
    | OutputsTrimmed
    | ErrorRowsRemoved
    | BlocksForgotten
    | AttemptRecorded
    | TransitionRecorded
    | ContextPut
    | StatePut
    | StateGone
    | ItemsCaptured
    | SignalKept
    | SignalConsumed
    | SessionWritten
    | SessionMemberGone
    | CheckpointSaved
    | MetadataMerged
    | InjectionAdded
    | ChildCreated
    | LetterWritten
    | LetterOpened
    | PlanReplaced
    | DefinitionHeld
    | WebhookQueued
    | UsageRecorded
    | LineLogged
)


def steps_left(changes: Iterable[Change]) -> list[Step]:
    """Give the steps that changes have written and not closed again, each as it reads in the end."""
    left: dict[NodeKey, Step] = {}
    for change in changes:
        if isinstance(change, StepPut):
            left[change.step.key] = change.step
        elif isinstance(change, StepGone):
            left.pop(change.key, None)
    return list(left.values())
