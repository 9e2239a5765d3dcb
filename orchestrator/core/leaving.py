"""What is kept of a definition that an instance has left while a step of it ran (sequences contract §1, Migration).

The step ends as it would have: its retry policy, its schema, its lane, the items of the for_eachs around it. So the
root block around it is kept on the step's own row, with nothing else inside, and which lanes the outputs of other
blocks are in, as it may read them. The old definition is needed by nobody: it may be deleted at once.
"""

from typing import Any

from orchestrator.core.plan import Plan
from sequences.document import (
    ABSplit,
    Block,
    CancellationScope,
    ForEach,
    Loop,
    Parallel,
    Race,
    Router,
    Saga,
    Step,
    TryCatch,
    parse_blocks,
    to_document,
)

_TRY_LISTS = ("try_block", "catch_block", "finally_block")
_SAGA_LISTS = ("action", "compensation")
_LANES = "lanes"
"""Member of what is kept beside the members of a block: the loops that name the lane of each block that has one."""


def kept_of(plan: Plan, block_id: str) -> dict[str, Any]:
    """Give the document of the root block around a block, with only the way to that block inside."""
    block = plan.places[block_id].block
    while (parent := plan.places[block.id].parent) is not None:
        block = _around(plan.places[parent].block, plan.places[block.id].branch, block)
    lanes = {name: place.loops[: place.lane_depth] for name, place in plan.places.items() if place.lane_depth > 0}
    kept = to_document(block)
    return {**kept, _LANES: lanes} if lanes else kept


def _around(composite: Block, branch: int, inside: Block) -> Block:
    only = (inside,)
    match composite:
        case Parallel() | Race():
            return composite.model_copy(update={"branches": (only,)})
        case Loop() | ForEach():
            return composite.model_copy(update={"body": only})
        case Router():
            return composite.model_copy(update={"routes": (), "default": only})
        case TryCatch():
            return composite.model_copy(update={**dict.fromkeys(_TRY_LISTS, ()), _TRY_LISTS[branch]: only})
        case ABSplit():
            variant = composite.variants[branch].model_copy(update={"blocks": only})
            return composite.model_copy(update={"variants": (variant,)})
        case CancellationScope():
            return composite.model_copy(update={"blocks": only})
        case Saga():
            step = composite.steps[branch // 2]
            lists = (_empty(step.action), inside) if branch % 2 else (inside, None)
            step = step.model_copy(update=dict(zip(_SAGA_LISTS, lists, strict=True)))
            return composite.model_copy(update={"steps": (step,)})
        case _:
            raise TypeError(f"a block of type {composite.type!r} has no lists")


def _empty(block: Block) -> Step:
    """Give what stands for a block where a document must have one. It has that block's id, which no other has."""
    return Step(id=block.id, handler="noop")


def former_plan(plan: Plan, kept: dict[str, Any]) -> Plan:
    """Compile what `kept_of` gave, as a plan of its own."""
    lanes = {name: tuple(loops) for name, loops in kept.get(_LANES, {}).items()}
    return Plan(plan.definition.model_copy(update={"blocks": parse_blocks([kept])}), former_lanes=lanes)
