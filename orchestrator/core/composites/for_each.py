"""For each: a list run once for each item of a collection (sequences contract §3.5)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from orchestrator.core.composites.nodes import Memory, open_composite, remember, settle, settled_state, start_list
from orchestrator.core.model import Node, NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Ended, Turn
from sequences import document
from sequences.collection import resolve_collection
from sequences.references import references
from sequences.templates import TemplateError

_ALL_WELL: Final[Mapping[str, Any]] = {"again": [], "failed": False, "cancelled": False, "error": None}


def enter(turn: Turn, key: NodeKey, block: document.ForEach, memory: Memory | None) -> None:
    """Capture the collection and start the first items, or go on with those that did not end well."""
    if memory is not None:
        _reopen(turn, key, block, memory)
        return
    items = _collect(turn, key, block)
    node = open_composite(turn, key, {"total": len(items), "next": 0, "open": 0, "finished": 0, **_ALL_WELL})
    if items:
        turn.capture_items(key, items)
    _fill(turn, node, block)


def _reopen(turn: Turn, key: NodeKey, block: document.ForEach, memory: Memory) -> None:
    again = memory["again"]
    finished = memory["finished"] - len(again)
    node = open_composite(turn, key, {**memory, "open": len(again), "finished": finished, **_ALL_WELL})
    for index in again:
        start_list(turn, key.block_id, 0, (*key.iteration, index))
    _fill(turn, node, block)


def _collect(turn: Turn, key: NodeKey, block: document.ForEach) -> tuple[Any, ...]:
    scope = turn.scope(key, references(block.collection, kind="collection"))
    try:
        return tuple(resolve_collection(block.collection, scope)[: block.max_iterations])
    except TemplateError:
        return ()


def _fill(turn: Turn, node: Node, block: document.ForEach) -> None:
    """Start items, in order, until as many are in progress as may be; settle when none is."""
    memory = dict(node.memory)
    may_start = not memory["failed"] and not memory["cancelled"]
    while may_start and memory["open"] < block.concurrency and memory["next"] < memory["total"]:
        start_list(turn, block.id, 0, (*node.key.iteration, memory["next"]))
        memory["next"] += 1
        memory["open"] += 1
    node = remember(turn, node, **memory)
    if memory["open"] == 0:
        settle(turn, node, settled_state(node), StepError.from_json(memory["error"]))


def item_ended(turn: Turn, key: NodeKey, block: document.ForEach, ended: Ended, result: NodeState) -> None:
    """Count an item that has ended, and start the next; after a failure, none."""
    node = turn.open_node(key)
    index = ended.key.iteration[turn.plan.depth(key.block_id)]
    memory = dict(node.memory)
    memory["open"] -= 1
    memory["finished"] += 1
    if result is not NodeState.COMPLETED:
        memory["again"] = [*memory["again"], index]
        memory["failed"] = memory["failed"] or result is NodeState.FAILED
        memory["cancelled"] = memory["cancelled"] or result is NodeState.CANCELLED
        memory["error"] = memory["error"] or (ended.error.to_json() if ended.error else None)
    else:
        progress = {"_index": memory["finished"], "_total": memory["total"], "_item_var": block.item_var}
        turn.add_output(key, progress)
    _fill(turn, replace(node, memory=memory), block)
