"""Cancellation scope: a list that a cancellation from outside does not interrupt (sequences contract §3.10, §9.5).

What is inside is shielded by the plan (`Place.is_shielded`). A cancel that comes meanwhile is remembered on the
instance, and turns away whatever would follow the scope.
"""

from orchestrator.core.composites.nodes import open_composite, settle, start_list
from orchestrator.core.model import NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Turn


def enter(turn: Turn, key: NodeKey) -> None:
    """Start the list."""
    node = open_composite(turn, key, {})
    if not start_list(turn, key.block_id, 0, key.iteration):
        settle(turn, node, NodeState.COMPLETED)


def list_ended(turn: Turn, key: NodeKey, result: NodeState, error: StepError | None) -> None:
    """End as the list has ended."""
    settle(turn, turn.open_node(key), result, error)
