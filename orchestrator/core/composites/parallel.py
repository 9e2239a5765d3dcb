"""Parallel: all branches at once; it waits for every one of them (sequences contract §3.2)."""

from orchestrator.core.cancellation import cancel_inside
from orchestrator.core.composites.nodes import open_composite, settle, settled_state, start_list
from orchestrator.core.model import NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace
from sequences import document


def enter(turn: Turn, key: NodeKey, block: document.Parallel, *, is_stopping: bool = False) -> None:
    """Start every branch, or come past all of them again; without any, the block is complete.

    Args:
        is_stopping: A branch has failed before, and ends the others.
    """
    branches = [number for number, branch in enumerate(block.branches) if branch]
    well = {"stopping": is_stopping, "failed": False, "cancelled": False, "error": None}
    node = open_composite(turn, key, {"open": len(branches), **well})
    if not branches:
        settle(turn, node, NodeState.COMPLETED)
    for number in branches:
        start_list(turn, key.block_id, number, key.iteration)


def branch_ended(
    turn: Turn, key: NodeKey, block: document.Parallel, result: NodeState, error: StepError | None
) -> None:
    """Count a branch that has ended; the first failure ends the others if the block fails fast."""
    node = turn.open_node(key)
    known = node.memory
    has_failed = result is NodeState.FAILED
    stops_now = has_failed and block.fails_fast and not known["stopping"]
    memory = {
        "open": known["open"] - 1,
        "stopping": known["stopping"] or stops_now,
        "failed": known["failed"] or has_failed,
        "cancelled": known["cancelled"] or result is NodeState.CANCELLED,
        "error": known["error"] or (error.to_json() if error else None),
    }
    if memory["open"] == 0:
        settle(turn, node, settled_state(memory), StepError.from_json(memory["error"]), memory=memory)
        return
    turn.put_node(replace(node, memory=memory))
    if stops_now:
        cancel_inside(turn, key)
