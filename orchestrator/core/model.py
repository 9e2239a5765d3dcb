"""The values the core reasons about: instances, nodes, open steps and claims.

A node is named by its block id and the iteration numbers of the loops around it, outermost first. The name does not
depend on the block's position, so injected blocks and migrated definitions keep it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from orchestrator.core.states import Activity, InstanceState, NodeState, StepState

Iteration = tuple[int, ...]


class NodeKey(NamedTuple):
    """Name of a node within its instance."""

    block_id: str
    iteration: Iteration = ()


ROOT_KEY = NodeKey("")
"""Key of the instance itself, used by its start timer. No block has an empty id."""


BESIDE = -1
"""First number of an iteration, and of a lane, that belongs to no loop: what is called, counted or written beside the
flow. Loops count from 0, so such a name is never that of a node, whatever its block id."""


def is_beside(key: NodeKey) -> bool:
    """Tell whether a key names something beside the flow rather than a node of it."""
    return key.iteration[:1] == (BESIDE,)


class OutputKey(NamedTuple):
    """Name of a newest output: the block, and the lane it must come from.

    A lane is the iteration prefix down to the innermost `for_each` that runs items concurrently, so that items in
    progress at once never read each other's outputs.

    Attributes:
        is_any_below: Those of the lanes below this one count too; of the lane `()`, those of all.
    """

    block_id: str
    lane: Iteration
    is_any_below: bool = False


def names_of_output(block_id: str, lane: Iteration) -> tuple[OutputKey, ...]:
    """Give every name of the newest output of a block, once it is one in this lane."""
    name = OutputKey(block_id, lane)
    if lane[:1] == (BESIDE,):
        return (name,)
    return (name, *(OutputKey(block_id, lane[:depth], is_any_below=True) for depth in range(len(lane) + 1)))


class ItemKey(NamedTuple):
    """Name of one captured item of a `for_each`."""

    node: NodeKey
    position: int


class SequenceName(NamedTuple):
    """Name of a sequence within the tenant and namespace of an instance; without a version the newest one is meant."""

    name: str
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Startable:
    """What starting a child has to know of its sequence."""

    sequence_id: UUID
    input_schema: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The block that has started an instance as its child, and waits for its end."""

    instance_id: UUID
    key: NodeKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The hot part of an instance; its context lives apart.

    Args:
        version: Rises with every committed change; what optimistic writers compare.
        running: Open leaves in the hands of a node (in-process steps that are ready, claimed or asleep).
        waiting: Open leaves that wait for an outsider (worker tasks, humans, children).
        scheduled: Open leaves that wait for a moment.
        is_held: No further step starts: a pause was asked for, or a client has put the instance off to a moment.
        is_cancelling: A cancel was accepted and shielded work is being finished.
        parked_reason: Why the engine stopped this instance for a human; None if it did not.
        round: How often the root list was walked anew: by a retry, a resume, a migration.
        session_id: The session whose data it shares with other instances; None without one.
        budget: Limits by name, as the client gave them; None without any.
        input_tokens: Tokens that models have read for its steps, as far as their outputs say so.
        output_tokens: Tokens that models have written for its steps.
        iterations: Iterations of loops and items of for_eachs begun since it was last reopened.
        leaving: Open steps that were entered under a definition the instance has left since.
        injected: Blocks that were injected into its root list; 0 spares every reader the look for injections.
        parent: The block whose child this is; None for an instance that was started from outside.
        depth: Parents above it.
    """

    id: UUID
    tenant_id: str
    namespace: str
    sequence_id: UUID
    state: InstanceState
    version: int = 0
    priority: int = 1
    timezone: str = "UTC"
    running: int = 0
    waiting: int = 0
    scheduled: int = 0
    is_held: bool = False
    is_cancelling: bool = False
    parked_reason: str | None = None
    round: int = 0
    leaving: int = 0
    injected: int = 0
    run_id: UUID | None = None
    current_step: str | None = None
    current_step_started_at: datetime | None = None
    total_steps: int = 0
    dry_run: bool = False
    dry_run_auto_approve: bool = False
    started_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    session_id: UUID | None = None
    budget: Mapping[str, int] | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    iterations: int = 0
    parent: Parent | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a model has used for a step: the tokens it has read and written."""

    model: str
    provider: str | None
    input_tokens: int
    output_tokens: int
    kind: str = "llm_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The data of a session as they were read; any JSON value."""

    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A block that was entered. `memory` is what a composite keeps in order to settle; see `composites`."""

    key: NodeKey
    state: NodeState
    started_at: datetime | None = None
    completed_at: datetime | None = None
    memory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An open step: the row that workers claim.

    Args:
        id: Identity of this attempt; changes with every new attempt. Hints and worker tasks name it.
        attempt: Executions that have failed before this one.
        losses: Executions that ended with the death of their worker, not counted as attempts.
        entered_at: When the step was first reached.
        started_at: When it had passed its delay and its limits for the first time; deadlines count from it.
        ready_at: When the step last became claimable, or its gate opened; None before.
        wake_at: The moment the step itself waits for; None if only an outsider or a worker moves it.
        deadline_at: When the step fails wherever it stands; None without a deadline.
        timeout: How long one attempt may take. Counts from the claim for handlers that run in process, from the moment
            the attempt is queued for all others.
        expires_at: End of the attempt's time-out; None without one, or before it counts.
        hinted_at: When a hint for this attempt was sent; None if none is out.
        token: The claim; None unless claimed.
        output: What a sleeping step will return; what an intercepted one has returned.
        memory: What else is kept of it: see `interceptors.py` for steps of the flow, `asides.py` for calls beside it.
        cache_key: Name under which its output will be cached; None if it is not.
        former: The block as it read in the definition it was entered under, and what is around it, if the instance has
            left that definition; see `leaving.py`.
    """

    key: NodeKey
    id: UUID
    state: StepState
    activity: Activity
    handler: str
    queue: str
    is_queue_named: bool = False
    tenant_id: str
    priority: int
    attempt: int = 0
    losses: int = 0
    entered_at: datetime
    started_at: datetime | None = None
    ready_at: datetime | None = None
    wake_at: datetime | None = None
    deadline_at: datetime | None = None
    timeout: timedelta | None = None
    expires_at: datetime | None = None
    hinted_at: datetime | None = None
    token: UUID | None = None
    worker_id: UUID | None = None
    worker_name: str | None = None
    slot: int | None = None
    claimed_at: datetime | None = None
    claim_epoch: int = 0
    output: Any = None
    memory: Mapping[str, Any] | None = None
    cache_key: str | None = None
    former: Any = None

    @property
    def timer_at(self) -> datetime | None:
        """When the timer loop must look at the step: its own moment or its deadline, which a pause holds up."""
        if self.deadline_at is None or self.state is StepState.HELD:
            return self.wake_at
        return self.deadline_at if self.wake_at is None else min(self.wake_at, self.deadline_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A worker's committed right to one attempt."""

    instance_id: UUID
    step_id: UUID
    key: NodeKey
    token: UUID
    attempt: int
    handler: str
    queue: str
    claimed_at: datetime
    expires_at: datetime | None
    worker_id: UUID | None = None
    losses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSignal:
    """A custom signal that no gate has consumed yet."""

    id: UUID
    name: str | None
    payload: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StepError:
    """Why a step failed, as `_error` and the dead-letter list show it."""

    step_id: str
    message: str
    details: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the form that a composite keeps in its memory."""
        return {"step_id": self.step_id, "message": self.message, "details": self.details}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> "StepError | None":
        """Read what `to_json` wrote; None stays None."""
        return None if value is None else cls(**value)
