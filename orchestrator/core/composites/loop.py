"""Loop: a list repeated while a condition holds (sequences contract §3.4).

`retain_iterations: 0` keeps one row of each block, as 1 does: what a block has said can always be read.
"""

from orchestrator.core.composites.nodes import (
    Memory,
    is_spent,
    must_end,
    open_composite,
    remember,
    settle,
    start_iteration,
    start_list,
)
from orchestrator.core.conditions import condition_references, holds
from orchestrator.core.model import Node, NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace
from sequences import document
from sequences.references import ALL


def enter(turn: Turn, key: NodeKey, block: document.Loop, memory: Memory | None) -> None:
    """Begin with the first iteration, or go on with the one that a retry comes back to."""
    node = open_composite(turn, key, memory or {"n": 0, "silent": _read_of_own_body(turn, block)})
    if memory is None or memory["polling"] or memory.get("held"):
        _begin_iteration(turn, node, block, node.memory["n"])
    else:
        start_list(turn, key.block_id, 0, (*key.iteration, memory["n"]))


def _begin_iteration(turn: Turn, node: Node, block: document.Loop, n: int) -> None:
    memory = {**node.memory, "n": n, "polling": False, "held": False}
    if n >= block.max_iterations or not _condition_holds(turn, node, block, n):
        settle(turn, node, NodeState.COMPLETED, memory=memory)
        return
    turn.put_node(replace(node, memory=memory))
    start_iteration(turn, node.key, n)


def _condition_holds(turn: Turn, node: Node, block: document.Loop, n: int) -> bool:
    """Test the condition; it counts as satisfied as long as a block of the body that it reads has not spoken."""
    if node.memory["silent"]:
        return True
    return holds(turn, node.key, block.condition, variables={"iteration": n})


def _read_of_own_body(turn: Turn, block: document.Loop) -> list[str]:
    read = condition_references(block.condition).outputs
    if read is ALL:
        return []
    return sorted(name for name in read if name in turn.plan.places and block.id in turn.plan.places[name].loops)


def hear(turn: Turn, key: NodeKey, number: int) -> None:
    """Tell the loops around an iteration that has ended which of the blocks they listen for have spoken in it.

    A block speaks when it completes, a split when it has chosen. It may stand in an inner loop, whose iterations the
    outer one does not know; so it is the inner loop that tells.
    """
    loops = (*turn.plan.places[key.block_id].loops, key.block_id)
    iteration = (*key.iteration, number)
    for depth, loop_id in enumerate(loops):
        node = turn.open_node(NodeKey(loop_id, iteration[:depth]))
        silent = node.memory.get("silent") or []
        here = [name for name in silent if turn.plan.places[name].loops == loops]
        spoken = [name for name in here if _has_spoken(turn, NodeKey(name, iteration))]
        if spoken:
            remember(turn, node, silent=[name for name in silent if name not in spoken])


def _has_spoken(turn: Turn, key: NodeKey) -> bool:
    node = turn.node(key)
    chose = isinstance(turn.plan.places[key.block_id].block, document.ABSplit)
    return node is not None and (chose or node.state is NodeState.COMPLETED)


def body_ended(turn: Turn, key: NodeKey, block: document.Loop, result: NodeState, error: StepError | None) -> None:
    """Count an iteration that has ended, and begin the next one, now or after a pause."""
    node = turn.open_node(key)
    n = node.memory["n"]
    if block.retain_iterations is not None:
        turn.trim_outputs(key, keep=block.retain_iterations, since=None)
    if result is NodeState.CANCELLED or (result is NodeState.FAILED and not block.continue_on_error):
        settle(turn, node, result, error)
        return
    turn.add_output(key, {"_iterations": n + 1}, attempt=n + 1)
    if block.break_on is not None and holds(turn, key, block.break_on, variables={"iteration": n}):
        settle(turn, node, NodeState.COMPLETED)
        return
    paused = {**node.memory, "n": n + 1, "polling": True}
    pause = block.poll_interval if n + 1 < block.max_iterations else None
    if must_end(turn, key):
        settle(turn, node, NodeState.CANCELLED, memory=paused)
    elif pause or is_spent(turn):
        turn.put_node(replace(node, memory=paused))
        turn.put_timer(key, turn.after_seconds(pause or 0))
    else:
        _begin_iteration(turn, node, block, n + 1)


def poll(turn: Turn, node: Node, block: document.Loop) -> None:
    """Begin the next iteration now that its moment has come; while the instance is held, after the resume."""
    turn.drop_timer(node.key)
    if turn.instance.is_held:
        remember(turn, node, polling=False, held=True)
    else:
        _begin_iteration(turn, node, block, node.memory["n"])
