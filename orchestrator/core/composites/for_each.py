"""For each: a list run once for each item of a collection (sequences contract §3.5)."""

from collections.abc import Mapping
from typing import Any, Final

from orchestrator.core.composites.nodes import (
    Memory,
    is_spent,
    open_composite,
    settle,
    settled_state,
    start_iteration,
    start_list,
)
from orchestrator.core.model import Node, NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Ended, Turn
from orchestrator.core.values import replace
from sequences import document
from sequences.collection import resolve_collection
from sequences.references import references
from sequences.templates import TemplateError

_ALL_WELL: Final[Mapping[str, Any]] = {"polling": False, "failed": False, "cancelled": False, "error": None}


def enter(turn: Turn, key: NodeKey, block: document.ForEach, memory: Memory | None) -> None:
    """Capture the collection and start the first items, or go on with those that did not end well."""
    if memory is not None:
        _reopen(turn, key, block, memory)
        return
    items = _collect(turn, key, block)
    begun = {"total": len(items), "next": 0, "open": 0, "finished": 0}
    node = open_composite(turn, key, {**begun, **_ALL_WELL, **_running(turn, block, [])})
    if items:
        turn.capture_items(key, items)
    _fill(turn, node, node.memory, block)


def _reopen(turn: Turn, key: NodeKey, block: document.ForEach, memory: Memory) -> None:
    again = memory["again"]
    known = {"total": memory["total"], "next": memory["next"], "open": len(again)}
    known["finished"] = known["next"] - known["open"]
    node = open_composite(turn, key, {**known, **_ALL_WELL, **_running(turn, block, again)})
    for index in again:
        start_list(turn, key.block_id, 0, (*key.iteration, index))
    _fill(turn, node, node.memory, block)


def _running(turn: Turn, block: document.ForEach, items: list[int]) -> Memory:
    """Note which items are in progress if old rows are dropped (theirs stay), or if one may be come past again."""
    is_noted = block.retain_iterations is not None or turn.instance.leaving
    return {"running": items} if is_noted else {}


def _collect(turn: Turn, key: NodeKey, block: document.ForEach) -> tuple[Any, ...]:
    scope = turn.scope(key, references(block.collection, kind="collection"))
    try:
        return tuple(resolve_collection(block.collection, scope)[: block.max_iterations])
    except TemplateError:
        return ()


def _fill(turn: Turn, node: Node, known: Memory, block: document.ForEach) -> None:
    """Start items, in order, until as many are in progress as may be; settle when none is.

    A decision starts no more than its share: if items are left then, the block polls, and goes on in the next one.

    Args:
        known: What the block knows by now.
    """
    memory = dict(known)
    while (wants_more := _wants_more(memory, block)) and not is_spent(turn):
        start_iteration(turn, node.key, memory["next"])
        if "running" in memory:
            memory["running"] = [*memory["running"], memory["next"]]
        memory["next"] += 1
        memory["open"] += 1
    if wants_more and not memory["polling"]:
        turn.put_timer(node.key, turn.now)
    elif memory["polling"] and not wants_more:
        turn.drop_timer(node.key)
    memory["polling"] = wants_more
    if memory["open"] == 0 and not wants_more:
        settle(turn, node, settled_state(memory), StepError.from_json(memory["error"]), memory=memory)
    else:
        turn.put_node(replace(node, memory=memory))


def _wants_more(memory: Memory, block: document.ForEach) -> bool:
    is_well = not memory["failed"] and not memory["cancelled"]
    return is_well and memory["open"] < block.concurrency and memory["next"] < memory["total"]


def item_ended(turn: Turn, key: NodeKey, block: document.ForEach, ended: Ended, result: NodeState) -> None:
    """Count an item that has ended, and start the next; after a failure, none."""
    node = turn.open_node(key)
    error = ended.error
    memory = dict(node.memory)
    running = [index for index in memory.get("running", ()) if (*key.iteration, index) != ended.key.iteration]
    if "running" in memory:
        memory["running"] = running
    if block.retain_iterations is not None:
        turn.trim_outputs(key, keep=block.retain_iterations, since=(*key.iteration, min(running)) if running else None)
    memory["open"] -= 1
    memory["finished"] += 1
    if result is not NodeState.COMPLETED:
        memory["failed"] = memory["failed"] or result is NodeState.FAILED
        memory["cancelled"] = memory["cancelled"] or result is NodeState.CANCELLED
        memory["error"] = memory["error"] or (error.to_json() if error else None)
    else:
        progress = {"_index": memory["finished"], "_total": memory["total"], "_item_var": block.item_var}
        turn.add_output(key, progress)
    _fill(turn, node, memory, block)


def poll(turn: Turn, node: Node, block: document.ForEach) -> None:
    """Start further items in this decision."""
    _fill(turn, node, node.memory, block)


def go_on(turn: Turn, node: Node, block: document.ForEach) -> None:
    """Come past the items in progress again.

    Which these are is noted (`running`) by a migration, and by a block that begins while steps are leaving; any other
    block has all of them open.
    """
    running = node.memory.get("running")
    if running is None:
        return
    for index in running:
        start_list(turn, block.id, 0, (*node.key.iteration, index))
    _fill(turn, node, {**node.memory, "open": len(running)}, block)
