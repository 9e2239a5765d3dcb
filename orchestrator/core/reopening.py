"""Making an ended instance go on: which of its nodes a retry runs again (sequences contract §9.7).

A node runs again if it did not end well and the retry comes past it: every composite around it ended badly too, and
goes on with the list, the iteration or the item that the node is in. Others keep what they ended in: a failure that a
catch list has handled, or that a loop went on after, stays the failure it was.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from orchestrator.core.composites.race import is_won
from orchestrator.core.composites.saga import is_rolling_back
from orchestrator.core.composites.try_catch import LIST_OF_PHASE, phase_to_go_on_with
from orchestrator.core.model import Node, NodeKey
from orchestrator.core.plan import FINALLY_LIST, Plan
from orchestrator.core.states import NodeState
from orchestrator.core.steps import PASSED
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace
from sequences import document


def reopen(turn: Turn) -> None:
    """Make every node that runs again pending; composites keep what they know, and all keep when they first began."""
    ended = {node.key: node for node in turn.ended_badly()}
    items = _items_of(turn.plan, ended)
    for node in ended.values():
        if _runs_again(turn.plan, ended, node.key):
            known = _known(turn.plan, node, items)
            turn.put_node(replace(node, state=NodeState.PENDING, completed_at=None, memory=known))


def _items_of(plan: Plan, ended: Iterable[NodeKey]) -> Mapping[NodeKey, set[int]]:
    """Give the items of each for_each that did not end well: those with a block that did not."""
    items: dict[NodeKey, set[int]] = defaultdict(set)
    for key in ended:
        parent = plan.parent(key) if key.block_id in plan.places else None
        if parent is not None and isinstance(plan.places[parent.block_id].block, document.ForEach):
            items[parent].add(key.iteration[len(parent.iteration)])
    return items


def _known(plan: Plan, node: Node, items: Mapping[NodeKey, set[int]]) -> Mapping[str, object]:
    match plan.places[node.key.block_id].block:
        case document.Step():
            return {PASSED: node.memory[PASSED]} if PASSED in node.memory else {}
        case document.SubSequence():
            return {}
        case document.ForEach() if node.memory:  # one that was turned away before it began knows nothing
            return {**node.memory, "again": sorted(items.get(node.key, ()))}
        case _:
            return node.memory


def _runs_again(plan: Plan, ended: Mapping[NodeKey, Node], key: NodeKey) -> bool:
    if key.block_id not in plan.places:
        return False
    parent = plan.parent(key)
    if parent is None:
        return True
    composite = ended.get(parent)
    return composite is not None and _comes_past(plan, composite, key) and _runs_again(plan, ended, parent)


def _comes_past(plan: Plan, composite: Node, key: NodeKey) -> bool:
    """Tell whether a composite that is retried goes on with the list a node is in."""
    number = key.iteration[len(composite.key.iteration) :]
    match plan.places[composite.key.block_id].block:
        case document.Loop():
            return number[0] == composite.memory.get("n")
        case document.TryCatch():
            branch = plan.places[key.block_id].branch
            return branch in {LIST_OF_PHASE[phase_to_go_on_with(composite.memory)], FINALLY_LIST}
        case document.Race():
            return not is_won(composite.memory)
        case document.Saga():
            is_compensation = plan.places[key.block_id].branch % 2 == 1
            return is_compensation == is_rolling_back(composite.memory)
        case _:
            return True
