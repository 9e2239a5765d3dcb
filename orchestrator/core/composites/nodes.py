"""What all composites do with their own node and their lists."""

from collections.abc import Mapping
from typing import Any, Final

from orchestrator.core.cancellation import is_still_shielded
from orchestrator.core.model import Iteration, Node, NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.steps import end_node
from orchestrator.core.turn import Ended, Enter, Turn
from orchestrator.core.values import replace

Memory = Mapping[str, Any]

MAX_ITERATIONS: Final = 1_000_000
"""Iterations and items that one instance may begin, over all its loops and for_eachs (sequences contract §3.4)."""

LISTS_PER_TURN: Final = 2000
"""Iterations that one decision begins before it lets others have the instance."""


def open_composite(turn: Turn, key: NodeKey, memory: Memory) -> Node:
    """Write the node of a composite that begins; over a retry it keeps the moment it first began."""
    former = turn.node(key) if turn.instance.round > 0 else None
    started_at = former.started_at if former is not None else turn.now
    node = Node(key=key, state=NodeState.RUNNING, started_at=started_at, memory=memory)
    turn.put_node(node)
    return node


def remember(turn: Turn, node: Node, **values: Any) -> Node:
    """Write some of what a composite knows anew."""
    node = replace(node, memory={**node.memory, **values})
    turn.put_node(node)
    return node


def settle(
    turn: Turn, node: Node, state: NodeState, error: StepError | None = None, *, memory: Memory | None = None
) -> None:
    """Write the end of a composite, with what it knows by then if that is new, and have its parent told."""
    known = node.memory if memory is None else memory
    turn.put_node(replace(node, state=state, completed_at=turn.now, memory=known))
    turn.todo.append(Ended(node.key, state, error))


def start_list(turn: Turn, block_id: str, branch: int, iteration: Iteration) -> bool:
    """Start the first block of a list; False if the list is empty."""
    children = turn.plan.children(block_id, branch)
    if children:
        turn.todo.append(Enter(NodeKey(children[0], iteration)))
    return bool(children)


def start_iteration(turn: Turn, key: NodeKey, number: int) -> None:
    """Start the body of a loop or for_each for one iteration; past the ceiling over all of them its first block fails.

    A loop that reaches its own cap completes; here a flow that has run wild must not look as if all were done.
    """
    turn.lists_begun += 1
    turn.amend(iterations=turn.instance.iterations + 1)
    if turn.instance.iterations <= MAX_ITERATIONS:
        start_list(turn, key.block_id, 0, (*key.iteration, number))
        return
    first = NodeKey(turn.plan.children(key.block_id)[0], (*key.iteration, number))
    message = f"the instance has begun {MAX_ITERATIONS:,} iterations, the most it may"
    end_node(turn, first, NodeState.FAILED, error=StepError(step_id=key.block_id, message=message))


def is_spent(turn: Turn) -> bool:
    """Tell whether this decision has begun as many iterations as it may."""
    return turn.lists_begun >= LISTS_PER_TURN


def settled_state(memory: Memory) -> NodeState:
    """Say how a composite of several lists ends: failure outranks cancellation, cancellation outranks success."""
    if memory["failed"]:
        return NodeState.FAILED
    return NodeState.CANCELLED if memory["cancelled"] else NodeState.COMPLETED


def must_end(turn: Turn, key: NodeKey) -> bool:
    """Tell whether nothing may start here any more: the instance is cancelled, or what is around stops early."""
    place = turn.plan.places[key.block_id]
    if turn.instance.is_cancelling and not (place.is_shielded or is_still_shielded(turn, key)):
        return True
    for block_id, depth in place.stops_with:
        if turn.open_node(NodeKey(block_id, key.iteration[:depth])).memory["stopping"]:
            return True
    return False
