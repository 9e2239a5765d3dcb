"""An instance goes over to another definition while it lives (sequences contract §1, Migration).

One rule covers every depth: what has ended stays as it ended, what a worker has in hand ends as it would have, and
everything else is walked anew from the root of the new definition. So

* steps that only wait (for a moment, a person, a worker that has not claimed them) are withdrawn, and entered again
  where the new definition has them: a delay goes on from the moment it began, an open gate stays open;
* steps in hand keep what they need of the old definition on their own row (`leaving.py`). If the new definition has
  the same step at the same place, the walk stops in front of it. If it has not, the walk waits for its end;
* open composites keep what they know if the new definition has a block of that id and kind at the same depth of loops;
  others are as if they had not been reached.

A walk is repeatable: it passes over what has ended and leaves alone what is open. It is repeated whenever a step that
is leaving has ended.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from orchestrator.core import children
from orchestrator.core.cancellation import waits_for_its_start
from orchestrator.core.gates import comes_last
from orchestrator.core.leaving import kept_of
from orchestrator.core.model import Iteration, Node, NodeKey, Step
from orchestrator.core.plan import Plan
from orchestrator.core.states import NodeState, StepState
from orchestrator.core.steps import PASSED, block_of, passed_by
from orchestrator.core.turn import Enter, Turn
from sequences import document

_IN_HAND = frozenset({StepState.CLAIMED, StepState.ASLEEP, StepState.INTERCEPTED})


def migrate(turn: Turn, sequence_id: UUID, target: Plan) -> None:
    """Go over to another definition; the rows of what has ended stay."""
    former = turn.plan
    plan = target.with_injections(former.injections)
    progress = _items_in_progress(turn)
    for node in turn.open_nodes():
        _fit(turn, former, plan, node, progress.get(node.key, set()))
    for step in turn.open_steps():
        if _is_in_hand(turn, step):
            turn.put_step(replace(step, former=step.former or kept_of(former, step.key.block_id)))
        else:
            _withdraw(turn, plan, step)
    waits = waits_for_its_start(turn)
    turn.replace_plan(sequence_id, plan)
    if turn.instance.started_at is not None and not waits:
        turn.walks_again = True


def _withdraw(turn: Turn, plan: Plan, step: Step) -> None:
    """Take back a step that only waits; one that has passed its delay or its gate does not come to that again."""
    passed = passed_by(turn, step)
    turn.withdraw(step)
    if passed is not None and step.key.block_id in plan.places:
        turn.put_node(Node(key=step.key, state=NodeState.PENDING, memory={PASSED: passed}))


def _is_in_hand(turn: Turn, step: Step) -> bool:
    """Tell whether the handler runs or has run: that is not undone, whatever the new definition says."""
    if step.state is StepState.GATE:
        return comes_last(block_of(turn, step.key))
    return step.state in _IN_HAND


def _items_in_progress(turn: Turn) -> Mapping[NodeKey, set[int]]:
    """Give the items that the open for_eachs have begun and not ended: those with something open inside."""
    items: dict[NodeKey, set[int]] = {}
    open_keys = [step.key for step in turn.open_steps()] + [node.key for node in turn.open_nodes()]
    for key in open_keys:
        place = turn.plan.places.get(key.block_id)
        for depth, loop_id in enumerate(place.loops if place is not None else ()):
            items.setdefault(NodeKey(loop_id, key.iteration[:depth]), set()).add(key.iteration[depth])
    return items


def _fit(turn: Turn, former: Plan, plan: Plan, node: Node, items: set[int]) -> None:
    """Let an open composite go on in the new definition as far as that has it."""
    block_id = node.key.block_id
    place, old = plan.places.get(block_id), former.places[block_id]
    is_there = place is not None and len(place.loops) == len(node.key.iteration)
    memory = _fitting(plan, place.block, node.memory, items) if is_there and place is not None else None
    if place is not None and is_there and type(place.block) is type(old.block) and memory is not None:
        turn.put_node(replace(node, memory=memory))
        return
    if node.memory.get("polling"):
        turn.drop_timer(node.key)
    if children.waits(node):
        children.let_go(turn, node)
    # Not ended: a later definition may have it again.
    turn.put_node(replace(node, state=NodeState.PENDING, memory={}))


def _fitting(plan: Plan, block: document.Block, memory: Mapping[str, Any], items: set[int]) -> Mapping[str, Any] | None:
    """Give what a composite may go on knowing; None if that means nothing in the new block."""
    match block:
        case document.Router() | document.ABSplit():
            choice = memory.get("choice")
            return memory if choice is None or choice < len(plan.branches(block.id)) else None
        case document.Loop():
            return {**memory, "silent": [name for name in memory.get("silent", ()) if name in plan.places]}
        case document.ForEach():
            return {**memory, "running": sorted(items)}
        case document.Saga():
            lists = plan.branches(block.id)
            undo = [index for index in memory.get("undo", ()) if 2 * index + 1 < len(lists) and lists[2 * index + 1]]
            return {**memory, "undo": undo}
        case _:
            return memory


def walk_again(turn: Turn) -> None:
    """Enter the root list once more, unless a step in hand has no place in the new definition: that ends first."""
    if turn.ending is None and all(_has_place(turn, step) for step in _leaving(turn)):
        turn.todo.append(Enter(NodeKey(turn.plan.root[0])))


def is_occupied(turn: Turn, key: NodeKey) -> bool:
    """Tell whether a step in hand stands further on in the list of a block: the block is entered when it has ended."""
    if not turn.instance.leaving:
        return False
    list_of = _list_of(turn.plan, key)
    return any(
        around != key and _list_of(turn.plan, around) == list_of
        for step in _leaving(turn)
        if _has_place(turn, step)
        for around in (step.key, *turn.plan.ancestors(step.key))
    )


def _list_of(plan: Plan, key: NodeKey) -> tuple[NodeKey | None, int, Iteration]:
    return (plan.parent(key), plan.places[key.block_id].branch, key.iteration)


def _leaving(turn: Turn) -> list[Step]:
    return [step for step in turn.open_steps() if step.former is not None] if turn.instance.leaving else []


def _has_place(turn: Turn, step: Step) -> bool:
    """Tell whether the plan has the same step inside the same loops."""
    place = turn.plan.places.get(step.key.block_id)
    if place is None or not isinstance(place.block, document.Step):
        return False
    return place.loops == turn.plan_of(step.key).places[step.key.block_id].loops
