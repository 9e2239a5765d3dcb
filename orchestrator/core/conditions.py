"""Conditions, evaluated in the scope of the node they belong to (sequences contract §7)."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from orchestrator.core.model import NodeKey
from orchestrator.core.turn import Turn
from sequences.expressions import compile_expression, truthy
from sequences.references import References, references


@lru_cache(maxsize=4096)
def condition_references(text: str) -> References:
    """Say what a condition can read."""
    return references(text, kind="expression")


def holds(
    turn: Turn,
    key: NodeKey,
    condition: str,
    *,
    bindings: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> bool:
    """Evaluate leniently: what cannot be read is null, what cannot be parsed is false."""
    scope = turn.scope(key, condition_references(condition), bindings=bindings, variables=variables)
    return truthy(compile_expression(condition).evaluate(scope))


def guard_holds(turn: Turn, key: NodeKey, guard: str) -> bool:
    """Evaluate strictly, as the guard of a step; a blank guard does not hold.

    Raises:
        ExpressionError: The guard cannot be read.
    """
    scope = turn.scope(key, condition_references(guard))
    return truthy(compile_expression(guard).evaluate_strict(scope))
