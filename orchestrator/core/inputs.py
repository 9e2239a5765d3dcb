"""What a handler is given: its parameters with templates resolved, and the scope it may see (contract §5.1, §8.2)."""

from dataclasses import dataclass
from typing import Any

from orchestrator.core.model import NodeKey
from orchestrator.core.turn import Turn
from sequences import document
from sequences.scope import Scope
from sequences.templates import TemplateError


class InputError(Exception):
    """The parameters cannot be made: a template is wrong. The step fails for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What one attempt is started with.

    Args:
        params: The step's parameters, templates resolved.
        scope: What the step's own expressions see.
    """

    params: Any
    scope: Scope


def prepare(turn: Turn, key: NodeKey) -> Inputs:
    """Build the inputs of an attempt; InputError when a template is wrong."""
    block = turn.plan.places[key.block_id].block
    if not isinstance(block, document.Step):
        raise TypeError(f"block {key.block_id!r} is not a step")
    compiled = turn.plan.params(block)
    scope = turn.scope(key, compiled.references).filtered(block.context_access)
    try:
        return Inputs(params=compiled.template.render(scope), scope=scope)
    except TemplateError as error:
        raise InputError(f"template error: {error}") from error
