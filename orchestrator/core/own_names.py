"""Two names that are not the data's own where a block stands (sequences contract §3.5, §3.7, §3.11, §8.1).

The variable of a for_each around it: what the block writes by this name is left out of the data, as the item hides it.
And `_error` in a list that handles one: what the block writes by it is in the data, and is also what that list reads
from then on. Who writes from outside of the flow stands in no list, and writes to all that handle an error.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.core.model import Node, NodeKey
from orchestrator.core.overlay import ERROR
from orchestrator.core.shared import written
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace


def without_variables(turn: Turn, key: NodeKey, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out the variables of for_eachs around a block that run one item after another.

    Inside of the for_each the item hides them, and when it ends they are gone (§3.5).
    """
    bound = turn.plan_of(key).variables(key.block_id)
    return {name: value for name, value in values.items() if name not in bound} if bound else values


def members_after(turn: Turn, key: NodeKey, data: Any, path: tuple[str, ...], value: Any) -> Mapping[str, Any]:
    """Give the top-level keys that a value written below one of them changes, as they read then."""
    name, *inside = path
    current = data.get(name) if isinstance(data, dict) else None
    return without_variables(turn, key, {name: written(current, tuple(inside), value)})


def merge_at(turn: Turn, key: NodeKey, values: Mapping[str, Any]) -> None:
    """Write top-level keys of `context.data` from where a block stands, of which none is a variable there."""
    turn.merge_data(values)
    handler = turn.handler_of(key) if ERROR in values else None
    if handler is not None:
        _rewrite_error(turn, handler, {ERROR: values[ERROR]})


def error_in(data: Any) -> dict[str, Any]:
    """Give `_error` as a member of data, none if they have none."""
    return {ERROR: data[ERROR]} if isinstance(data, dict) and ERROR in data else {}


def rewrite_errors(turn: Turn, error: dict[str, Any]) -> None:
    """Let every list that handles an error, or may once more, read another: who writes from outside stands in none."""
    for node in (*turn.open_nodes(), *turn.ended_badly()):
        if node.memory.get("caught"):
            _rewrite_error(turn, node, error)


def _rewrite_error(turn: Turn, handler: Node, error: dict[str, Any]) -> None:
    turn.put_node(replace(handler, memory={**handler.memory, "rewritten": error}))
