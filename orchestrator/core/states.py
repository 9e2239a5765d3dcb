"""States and the moves between them. The diagrams in the docs are drawn from these tables."""

from collections.abc import Mapping
from enum import StrEnum


class InstanceState(StrEnum):
    """What a client reads of an instance."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the instance has ended (a retry may still reopen it)."""
        return self in TERMINAL_INSTANCE_STATES


class NodeState(StrEnum):
    """The state of one block in one instance."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_terminal(self) -> bool:
        """Whether the block has ended."""
        return self in TERMINAL_NODE_STATES


class StepState(StrEnum):
    """Where an open step stands; a step that has ended has no row."""

    DELAYED = "delayed"
    WINDOW = "window"
    GATE = "gate"
    HELD = "held"
    READY = "ready"
    CLAIMED = "claimed"
    BACKOFF = "backoff"
    ASLEEP = "asleep"
    INTERCEPTED = "intercepted"


class Activity(StrEnum):
    """What an open leaf contributes to the state of its instance; a call beside the flow contributes nothing."""

    RUNNING = "running"
    WAITING = "waiting"
    SCHEDULED = "scheduled"
    ASIDE = "aside"


class TryPhase(StrEnum):
    """Which list of a try_catch is running."""

    TRY = "try"
    CATCH = "catch"
    FINALLY = "finally"


TERMINAL_INSTANCE_STATES = frozenset({InstanceState.COMPLETED, InstanceState.FAILED, InstanceState.CANCELLED})
TERMINAL_NODE_STATES = frozenset({NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED, NodeState.SKIPPED})

INSTANCE_MOVES: Mapping[InstanceState, frozenset[InstanceState]] = {
    InstanceState.SCHEDULED: frozenset({InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.CANCELLED}),
    InstanceState.RUNNING: frozenset(InstanceState) - {InstanceState.RUNNING},
    InstanceState.WAITING: frozenset(
        {InstanceState.RUNNING, InstanceState.SCHEDULED, InstanceState.CANCELLED, InstanceState.FAILED}
    ),
    InstanceState.PAUSED: frozenset({InstanceState.SCHEDULED, InstanceState.CANCELLED}),
    InstanceState.FAILED: frozenset({InstanceState.SCHEDULED}),
    InstanceState.COMPLETED: frozenset({InstanceState.SCHEDULED}),
    InstanceState.CANCELLED: frozenset({InstanceState.SCHEDULED}),
}

NODE_MOVES: Mapping[NodeState, frozenset[NodeState]] = {
    NodeState.PENDING: frozenset(
        {NodeState.RUNNING, NodeState.WAITING, NodeState.FAILED, NodeState.SKIPPED, NodeState.CANCELLED}
    ),
    # Back to pending: a pause has taken the step from the workers before it was over.
    NodeState.RUNNING: frozenset(
        {NodeState.PENDING, NodeState.WAITING, NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED}
    ),
    NodeState.WAITING: frozenset(
        {NodeState.PENDING, NodeState.RUNNING, NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED}
    ),
    NodeState.FAILED: frozenset({NodeState.PENDING}),
    NodeState.CANCELLED: frozenset({NodeState.PENDING}),
    NodeState.COMPLETED: frozenset(),
    NodeState.SKIPPED: frozenset(),
}

STEP_MOVES: Mapping[StepState, frozenset[StepState]] = {
    StepState.DELAYED: frozenset({StepState.WINDOW, StepState.GATE, StepState.READY, StepState.HELD}),
    StepState.WINDOW: frozenset({StepState.WINDOW, StepState.GATE, StepState.READY, StepState.HELD}),
    StepState.GATE: frozenset({StepState.READY, StepState.WINDOW, StepState.HELD}),
    StepState.HELD: frozenset({StepState.READY, StepState.WINDOW, StepState.GATE}),
    StepState.READY: frozenset({StepState.CLAIMED, StepState.HELD, StepState.BACKOFF}),
    StepState.CLAIMED: frozenset(
        {StepState.READY, StepState.BACKOFF, StepState.ASLEEP, StepState.HELD, StepState.GATE, StepState.INTERCEPTED}
    ),
    StepState.BACKOFF: frozenset({StepState.READY, StepState.WINDOW, StepState.HELD}),
    StepState.ASLEEP: frozenset({StepState.HELD, StepState.BACKOFF, StepState.GATE, StepState.INTERCEPTED}),
    StepState.INTERCEPTED: frozenset({StepState.GATE}),
}


class IllegalTransition(Exception):
    """A move that no table allows: a broken promise of the engine or a wrong request of a client."""


def route(source: InstanceState, target: InstanceState) -> tuple[InstanceState, ...]:
    """List the states an instance passes on its way, the last being `target`; empty when already there.

    One event can carry an instance over two legal moves (a wait that ends and completes the flow); the state between
    them is always `running`.

    >>> route(InstanceState.WAITING, InstanceState.COMPLETED)
    (<InstanceState.RUNNING: 'running'>, <InstanceState.COMPLETED: 'completed'>)
    """
    if source == target:
        return ()
    if target in INSTANCE_MOVES[source]:
        return (target,)
    between = InstanceState.SCHEDULED if source.is_terminal or source is InstanceState.PAUSED else InstanceState.RUNNING
    if between not in INSTANCE_MOVES[source]:
        raise IllegalTransition(f"cannot transition from {source} to {target}")
    return (between, *route(between, target))
