"""The execution tree: every block of the definition with the state it is in (sequences contract §10).

Only blocks that were entered have rows, so the tree is read from the plan, top down. A block in a loop is shown as it
stands in the newest iteration. For a block without a row the state follows from what happened around it: it is still
to come (`pending`), it was passed over by design (`skipped`), or what should have reached it ended (`cancelled`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from orchestrator.core.model import BESIDE, Iteration
from orchestrator.core.plan import CATCH_LIST, TRY_LIST, Plan
from orchestrator.core.states import Activity, InstanceState, NodeState, StepState, TryPhase
from sequences.document import ABSplit, CancellationScope, ForEach, Loop, Router, Saga, Step, TryCatch
from sequences.document import Block as AnyBlock

_BROKEN = frozenset({NodeState.FAILED, NodeState.CANCELLED})
_NOT_BEGUN = frozenset({StepState.DELAYED, StepState.WINDOW, StepState.HELD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is stored of a block in one iteration: an ended or composite node, or an open step."""

    block_id: str
    iteration: Iteration
    state: NodeState
    started_at: datetime | None = None
    completed_at: datetime | None = None
    memory: dict[str, Any] | None = None


def node_entry(
    block_id: str,
    iteration: Sequence[int],
    state: str,
    started_at: datetime | None,
    completed_at: datetime | None,
    memory: dict[str, Any] | None,
) -> Entry:
    """Read a node as the store gives it."""
    return Entry(
        block_id=block_id,
        iteration=tuple(iteration),
        state=NodeState(state),
        started_at=started_at,
        completed_at=completed_at,
        memory=memory,
    )


def step_entry(block_id: str, iteration: Sequence[int], state: str, activity: str, entered_at: datetime) -> Entry:
    """Read an open step as the store gives it."""
    shown = _step_state(StepState(state), Activity(activity))
    started_at = None if shown is NodeState.PENDING else entered_at
    return Entry(block_id=block_id, iteration=tuple(iteration), state=shown, started_at=started_at)


def _step_state(state: StepState, activity: Activity) -> NodeState:
    if state in _NOT_BEGUN:
        return NodeState.PENDING
    return NodeState.RUNNING if activity is Activity.RUNNING else NodeState.WAITING


def build(plan: Plan, instance_id: UUID, state: InstanceState, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Give the nodes of the tree in document order, parents first, as the wire shows them.

    Args:
        entries: At least the newest iteration of each block that was entered. A call beside the flow may bear the name
            of a block, as that of an escalation does; it is no node.
    """
    newest: dict[str, Entry] = {}
    for entry in entries:
        if entry.iteration[:1] == (BESIDE,):
            continue
        known = newest.get(entry.block_id)
        if known is None or entry.iteration >= known.iteration:
            newest[entry.block_id] = entry
    unreached = {
        InstanceState.COMPLETED: NodeState.SKIPPED,
        InstanceState.FAILED: NodeState.CANCELLED,
        InstanceState.CANCELLED: NodeState.CANCELLED,
    }.get(state, NodeState.PENDING)
    shown = _Walk(plan, newest, has_ended=state.is_terminal).list_of(plan.root, (), unreached, None)
    return [_view(instance_id, each) for each in shown]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    block: AnyBlock
    parent: str | None
    branch: int | None
    state: NodeState
    entry: Entry | None


class _Walk:
    def __init__(self, plan: Plan, newest: dict[str, Entry], *, has_ended: bool) -> None:
        self._plan = plan
        self._newest = newest
        self._has_ended = has_ended

    def list_of(
        self, blocks: Sequence[str], iteration: Iteration | None, unreached: NodeState, branch: int | None
    ) -> Iterator[_Shown]:
        """Show a list of blocks.

        Args:
            iteration: The iteration the list is in; None if it was never begun.
            unreached: State of a member that was not entered, as long as nothing before it broke the list.
        """
        for block_id in blocks:
            entry = self._entry(block_id, iteration)
            state = unreached if entry is None else self._state(entry)
            yield _Shown(
                block=self._plan.places[block_id].block,
                parent=self._plan.places[block_id].parent,
                branch=branch,
                state=state,
                entry=entry,
            )
            yield from self._inside(block_id, entry, state)
            if state in _BROKEN:
                unreached = NodeState.CANCELLED

    def _entry(self, block_id: str, iteration: Iteration | None) -> Entry | None:
        entry = self._newest.get(block_id)
        return entry if entry is not None and entry.iteration == iteration else None

    def _state(self, entry: Entry) -> NodeState:
        return NodeState.CANCELLED if self._has_ended and not entry.state.is_terminal else entry.state

    def _inside(self, block_id: str, entry: Entry | None, state: NodeState) -> Iterator[_Shown]:
        block = self._plan.places[block_id].block
        if isinstance(block, Step):
            return
        iteration = None if entry is None else entry.iteration
        if isinstance(block, Loop | ForEach):
            iteration = self._body_iteration(block_id, iteration)
        for branch, members in enumerate(self._plan.branches(block_id)):
            unreached = _unreached(block, branch, entry, state)
            index = None if isinstance(block, Loop | ForEach | CancellationScope) else branch
            yield from self.list_of(members, iteration, unreached, index)

    def _body_iteration(self, block_id: str, iteration: Iteration | None) -> Iteration | None:
        """Find the newest iteration of a loop that has begun: its first block tells."""
        first = self._newest.get(self._plan.children(block_id)[0])
        if iteration is None or first is None or first.iteration[: len(iteration)] != iteration:
            return None
        return first.iteration[: len(iteration) + 1]


def _unreached(block: AnyBlock, branch: int, entry: Entry | None, state: NodeState) -> NodeState:
    """Say what a block inside a composite is that was not entered, if nothing in its own list went wrong."""
    if entry is None or state is NodeState.SKIPPED:
        return state
    memory = entry.memory or {}
    if isinstance(block, Router | ABSplit) and memory.get("choice", branch) != branch:
        return NodeState.SKIPPED
    if isinstance(block, TryCatch) and branch == CATCH_LIST and _passes_catch(memory, state):
        return NodeState.SKIPPED
    if isinstance(block, Saga) and memory.get("caught"):
        return _unreached_of_failed_saga(memory, branch, state)
    if isinstance(block, Saga) and branch % 2 and state.is_terminal:
        return NodeState.SKIPPED
    if not state.is_terminal:
        return NodeState.PENDING
    if isinstance(block, TryCatch) and branch == TRY_LIST:
        return NodeState.CANCELLED
    return NodeState.SKIPPED if state is NodeState.COMPLETED else NodeState.CANCELLED


def _unreached_of_failed_saga(memory: dict[str, Any], branch: int, state: NodeState) -> NodeState:
    """Say what a list of a saga is that was not entered after an action had failed: later actions are abandoned."""
    index, is_compensation = divmod(branch, 2)
    if not is_compensation:
        return NodeState.CANCELLED
    if index not in memory["undo"]:
        return NodeState.SKIPPED
    return NodeState.CANCELLED if state.is_terminal else NodeState.PENDING


def _passes_catch(memory: dict[str, Any], state: NodeState) -> bool:
    """Tell whether the try list made the catch list superfluous."""
    past_try = memory.get("phase") == TryPhase.FINALLY or state.is_terminal
    return past_try and memory.get("origin") == TryPhase.TRY


def _view(instance_id: UUID, shown: _Shown) -> dict[str, Any]:
    entry = shown.entry
    return {
        "id": uuid5(instance_id, shown.block.id),
        "instance_id": instance_id,
        "block_id": shown.block.id,
        "parent_id": None if shown.parent is None else uuid5(instance_id, shown.parent),
        "block_type": shown.block.type,
        "branch_index": shown.branch,
        "state": shown.state.value,
        "started_at": None if entry is None else entry.started_at,
        "completed_at": None if entry is None else entry.completed_at,
    }
