"""Parallel: all branches at once; it waits for every one of them (sequences contract §3.2)."""

from orchestrator.core.cancellation import cancel_inside
from orchestrator.core.composites.nodes import open_composite, remember, settle, settled_state, start_list
from orchestrator.core.model import NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Turn
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
    has_failed = result is NodeState.FAILED
    stops_now = has_failed and block.fails_fast and not node.memory["stopping"]
    node = remember(
        turn,
        node,
        open=node.memory["open"] - 1,
        stopping=node.memory["stopping"] or stops_now,
        failed=node.memory["failed"] or has_failed,
        cancelled=node.memory["cancelled"] or result is NodeState.CANCELLED,
        error=node.memory["error"] or (error.to_json() if error else None),
    )
    if node.memory["open"] == 0:
        settle(turn, node, settled_state(node), StepError.from_json(node.memory["error"]))
    elif stops_now:
        cancel_inside(turn, key)
