"""What a handler is given: its parameters with templates resolved, and the scope it may see (contract §5.1, §8.2)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from orchestrator.core.model import ROOT_KEY, NodeKey, is_beside
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace
from sequences import document
from sequences.references import References, params_references
from sequences.scope import Scope
from sequences.templates import Constant, TemplateError


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


REVIEW = "human_review"
"""The handler that asks a person, or tells what one has answered."""
WHOLE_CONTEXT = References(data=True, config=True, session=True)


@lru_cache(maxsize=1000)
def _with_whole_context(references: References) -> References:
    return references | WHOLE_CONTEXT


def prepare(turn: Turn, key: NodeKey, *, whole_context: bool = False) -> Inputs:
    """Build the inputs of an attempt, or of a call beside the flow; InputError when a template is wrong.

    Args:
        whole_context: Load the sections of the context although the parameters may not read them.
    """
    if is_beside(key):
        return _prepare_call(turn, key, whole_context=whole_context)
    plan = turn.plan_of(key)
    block = plan.places[key.block_id].block
    if not isinstance(block, document.Step):
        raise TypeError(f"block {key.block_id!r} is not a step")
    compiled = plan.params(block)
    references = _with_whole_context(compiled.references) if whole_context else compiled.references
    if block.handler == REVIEW and block.wait_for_input is not None:
        references |= References(outputs=frozenset({block.id}))  # what its gate was answered
    scope = turn.scope(key, references)
    if whole_context:
        scope = replace(scope, audit=turn.slice.audit_section())
    scope = scope.filtered(block.context_access)
    try:
        return Inputs(params=compiled.template.render(scope), scope=scope)
    except TemplateError as error:
        raise InputError(str(error)) from error


def has_templates(turn: Turn, key: NodeKey) -> bool:
    """Tell whether the parameters of a step depend on anything, and so may turn out to be wrong."""
    plan = turn.plan_of(key)
    block = plan.places[key.block_id].block
    return not isinstance(block, document.Step) or not isinstance(plan.params(block).template, Constant)


def _prepare_call(turn: Turn, key: NodeKey, *, whole_context: bool) -> Inputs:
    """Give the inputs of a call beside the flow: its params were resolved when it was decided."""
    step = turn.step(key)
    if step is None or step.memory is None:
        raise InputError("the call has ended")
    params = step.memory["params"]
    read = params_references(step.handler, params)
    return Inputs(params=params, scope=turn.scope(ROOT_KEY, read | WHOLE_CONTEXT if whole_context else read))
