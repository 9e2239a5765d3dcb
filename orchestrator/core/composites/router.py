"""Router: the first route whose condition holds, else the default; chosen once (sequences contract §3.6)."""

from orchestrator.core.composites.nodes import Memory, open_composite, settle, start_list
from orchestrator.core.conditions import holds
from orchestrator.core.model import NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Turn
from sequences import document


def enter(turn: Turn, key: NodeKey, block: document.Router, memory: Memory | None) -> None:
    """Choose a list and start it; one that was chosen before a retry is kept."""
    choice = memory["choice"] if memory else _choose(turn, key, block)
    node = open_composite(turn, key, {"choice": choice})
    if choice is None or not start_list(turn, key.block_id, choice, key.iteration):
        settle(turn, node, NodeState.COMPLETED)


def _choose(turn: Turn, key: NodeKey, block: document.Router) -> int | None:
    for number, route in enumerate(block.routes):
        if holds(turn, key, route.condition):
            return number
    return len(block.routes) if block.default is not None else None


def list_ended(turn: Turn, key: NodeKey, result: NodeState, error: StepError | None) -> None:
    """End as the chosen list has ended."""
    settle(turn, turn.open_node(key), result, error)
