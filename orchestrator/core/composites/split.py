"""A/B split: one of several variants, by weight; the same one for ever (sequences contract §3.9)."""

from hashlib import sha256
from itertools import accumulate
from uuid import UUID

from orchestrator.core.composites.nodes import Memory, open_composite, settle, start_list
from orchestrator.core.model import NodeKey, StepError
from orchestrator.core.states import NodeState
from orchestrator.core.turn import Turn
from sequences import document


def enter(turn: Turn, key: NodeKey, block: document.ABSplit, memory: Memory | None) -> None:
    """Choose a variant, leave the row that says which, and start it; one chosen before a retry is kept."""
    choice = memory["choice"] if memory else choose(turn.instance.id, block)
    node = open_composite(turn, key, {"choice": choice})
    if not memory:
        name = block.variants[choice].name
        turn.add_output(key, {"variant": name, "variant_index": choice, "selected_variant": name})
    if not start_list(turn, key.block_id, choice, key.iteration):
        settle(turn, node, NodeState.COMPLETED)


def choose(instance_id: UUID, block: document.ABSplit) -> int:
    """Give the index of the variant of one instance: the rule of §3.9, which depends on nothing else.

    >>> even = [{"name": name, "weight": 1, "blocks": []} for name in "ab"]
    >>> block = document.ABSplit.model_validate({"id": "split", "variants": even})
    >>> [choose(UUID(int=number), block) for number in range(8)]
    [0, 0, 0, 1, 0, 0, 1, 1]
    """
    digest = sha256(instance_id.bytes + b"\0" + block.id.encode()).digest()
    bounds = list(accumulate(variant.weight for variant in block.variants))
    point = int.from_bytes(digest[:8], "big") % bounds[-1]
    return next(index for index, bound in enumerate(bounds) if point < bound)


def list_ended(turn: Turn, key: NodeKey, result: NodeState, error: StepError | None) -> None:
    """End as the chosen variant has ended."""
    settle(turn, turn.open_node(key), result, error)
