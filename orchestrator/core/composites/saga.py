"""Saga: actions in order; after a failure the completed ones are undone in reverse (sequences contract §3.11).

The action of step i is list 2i, its compensation list 2i + 1. A saga that has begun to undo never goes forward again,
not even after a retry: the retry tries the compensations that did not end well, and the saga fails once more
(docs/decisions/0017). With nothing to undo, a retry goes on at the action that failed.
"""

from orchestrator.core.composites.nodes import Memory, must_end, open_composite, remember, settle, start_list
from orchestrator.core.model import Node, NodeKey, StepError
from orchestrator.core.overlay import ERROR, handled_error
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Ended, Turn
from sequences import document


def enter(turn: Turn, key: NodeKey, block: document.Saga, memory: Memory | None) -> None:
    """Start the first action, or go on: with the roll-back if it has begun, else with the action that was reached."""
    memory = memory or {"at": 0, "done": [], "undo": [], "kept": []}
    if is_rolling_back(memory):
        undo = sorted({*memory["undo"], *memory["kept"]})
        node = open_composite(turn, key, {**memory, "undo": undo, "kept": []})
        turn.merge_data(handled_error(node))
        _undo_next(turn, node)
    else:
        node = open_composite(turn, key, {**memory, "caught": None, "rewritten": None, "error": None})
        _act(turn, node, block)


def go_on(turn: Turn, node: Node, block: document.Saga) -> None:
    """Come past the saga again: past its actions from the first one, or on with the roll-back."""
    if is_rolling_back(node.memory):
        _undo_next(turn, node)
    else:
        _act(turn, remember(turn, node, at=0, done=[]), block)


def is_rolling_back(memory: Memory) -> bool:
    """Tell whether an action has failed after others that must be undone."""
    return bool(memory.get("caught") and memory["done"])


def list_ended(turn: Turn, key: NodeKey, block: document.Saga, branch: int, ended: Ended) -> None:
    """Go on after an action or a compensation."""
    node = turn.open_node(key)
    index, is_compensation = divmod(branch, 2)
    if is_compensation:
        _undone(turn, node, index, ended.state)
    elif ended.state is NodeState.FAILED:
        _roll_back(turn, node, block, ended.error)
    elif ended.state is NodeState.CANCELLED:
        settle(turn, node, NodeState.CANCELLED)
    else:
        must_undo = ended.state is NodeState.COMPLETED and block.steps[index].compensation is not None
        done = [*node.memory["done"], index] if must_undo else node.memory["done"]
        _act(turn, remember(turn, node, at=index + 1, done=done), block)


def _act(turn: Turn, node: Node, block: document.Saga) -> None:
    at = node.memory["at"]
    if at < len(block.steps):
        start_list(turn, block.id, 2 * at, node.key.iteration)
    else:
        settle(turn, node, NodeState.COMPLETED)


def _roll_back(turn: Turn, node: Node, block: document.Saga, error: StepError | None) -> None:
    failed_step = block.steps[node.memory["at"]].id
    caught = {"failed_step": failed_step, "source": "saga", "block_id": block.id}
    turn.merge_data({ERROR: caught})
    kept_error = error.to_json() if error is not None else None
    _undo_next(turn, remember(turn, node, caught=caught, error=kept_error, undo=node.memory["done"]))


def _undo_next(turn: Turn, node: Node) -> None:
    """Start the last compensation that is due; the saga fails when none is."""
    if node.memory["undo"]:
        start_list(turn, node.key.block_id, 2 * node.memory["undo"][-1] + 1, node.key.iteration)
    else:
        settle(turn, node, NodeState.FAILED, StepError.from_json(node.memory["error"]))


def _undone(turn: Turn, node: Node, index: int, state: NodeState) -> None:
    """Go on after a compensation; one that failed is passed over, a cancellation ends the roll-back."""
    ended_well = state in {NodeState.COMPLETED, NodeState.SKIPPED}
    kept = node.memory["kept"] if ended_well else [*node.memory["kept"], index]
    node = remember(turn, node, undo=[due for due in node.memory["undo"] if due != index], kept=kept)
    if state is NodeState.CANCELLED and must_end(turn, node.key):
        settle(turn, node, NodeState.CANCELLED)
    else:
        _undo_next(turn, node)
