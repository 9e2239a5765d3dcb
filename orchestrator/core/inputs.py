"""What a handler is given: its parameters with templates resolved, and the scope it may see (contract §5.1, §8.2)."""

from dataclasses import dataclass, replace
from typing import Any

from orchestrator.core.model import NodeKey
from orchestrator.core.turn import Turn
from sequences import document
from sequences.references import References
from sequences.scope import Scope
from sequences.templates import TemplateError


class InputError(Exception):
    """The parameters cannot be made: a template is wrong. The step fails for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What one attempt is started with.

    Args:
        params: The step's parameters, templates resolved.
        scope: What the step's own expressions see. Its sections are whole when the whole context was asked for.
    """

    params: Any
    scope: Scope


WHOLE_CONTEXT = References(data=True, config=True, session=True)


def prepare(turn: Turn, key: NodeKey, *, whole_context: bool = False) -> Inputs:
    """Build the inputs of an attempt; InputError when a template is wrong.

    Args:
        whole_context: Load the sections of the context although the parameters may not read them.
    """
    block = turn.plan.places[key.block_id].block
    if not isinstance(block, document.Step):
        raise TypeError(f"block {key.block_id!r} is not a step")
    compiled = turn.plan.params(block)
    references = compiled.references | WHOLE_CONTEXT if whole_context else compiled.references
    scope = turn.scope(key, references)
    if whole_context:
        scope = replace(scope, audit=turn.slice.audit_section())
    scope = scope.filtered(block.context_access)
    try:
        return Inputs(params=compiled.template.render(scope), scope=scope)
    except TemplateError as error:
        raise InputError(f"template error: {error}") from error
