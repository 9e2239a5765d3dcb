"""Race: all branches at once; the first one that decides ends the others (sequences contract §3.3).

A branch wins when its list completes; it is dead when a member failed. A branch that a cancellation from outside has
ended decides nothing: shielded branches may still win. The block settles when what it has cancelled is at rest, so
that finally lists of losers have run before anything follows.
"""

from orchestrator.core.cancellation import cancel_inside
from orchestrator.core.composites.nodes import Memory, must_end, open_composite, remember, settle, start_list
from orchestrator.core.model import Node, NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace
from sequences import document


def enter(turn: Turn, key: NodeKey, block: document.Race, memory: Memory | None) -> None:
    """Start every branch that is not empty; a race that was won before it was reopened stays won."""
    runners = [number for number, branch in enumerate(block.branches) if branch]
    fresh = {"open": len(runners), "stopping": False, "result": None, "cancelled": False, "error": None}
    node = open_composite(turn, key, fresh)
    if not runners or is_won(memory):
        settle(turn, node, NodeState.COMPLETED)
        return
    for number in runners:
        start_list(turn, key.block_id, number, key.iteration)


def go_on(turn: Turn, node: Node, block: document.Race) -> None:
    """Come past all branches again; what is decided stays decided."""
    runners = [number for number, branch in enumerate(block.branches) if branch]
    node = remember(turn, node, open=len(runners), cancelled=False)
    if not runners:
        _settle(turn, node, node.memory)
    for number in runners:
        start_list(turn, block.id, number, node.key.iteration)


def is_won(memory: Memory | None) -> bool:
    """Tell whether a branch has completed first."""
    return memory is not None and memory["result"] == NodeState.COMPLETED


def branch_ended(turn: Turn, key: NodeKey, block: document.Race, result: NodeState, error: StepError | None) -> None:
    """Judge a branch that has ended, unless the race is decided already."""
    node = turn.open_node(key)
    verdict = {} if node.memory["stopping"] else _judge(turn, node, block, result, error)
    memory = {**node.memory, "open": node.memory["open"] - 1, **verdict}
    if memory["open"] == 0:
        _settle(turn, node, memory)
        return
    turn.put_node(replace(node, memory=memory))
    if verdict.get("stopping"):
        cancel_inside(turn, key)


def _judge(turn: Turn, node: Node, block: document.Race, result: NodeState, error: StepError | None) -> Memory:
    """Say what the race knows by the end of a branch."""
    if result is NodeState.CANCELLED and must_end(turn, node.key):
        return {"cancelled": True}
    verdict = NodeState.COMPLETED if result is NodeState.COMPLETED else NodeState.FAILED
    decides = verdict is NodeState.COMPLETED or block.semantics == "first_to_resolve"
    first_error = node.memory["error"] or (error.to_json() if error else None)
    return {"stopping": decides, "result": verdict if decides else None, "error": first_error}


def _settle(turn: Turn, node: Node, memory: Memory) -> None:
    undecided = NodeState.CANCELLED if memory["cancelled"] else NodeState.FAILED
    state = NodeState(memory["result"] or undecided)
    error = StepError.from_json(memory["error"]) if state is NodeState.FAILED else None
    settle(turn, node, state, error, memory=memory)
