"""Outputs that are used again: a step's `cache_key` (sequences contract §5.7).

The cache is the instance's own key-value state. The key is made when the step would be given to a worker, and stays on
its row: what the step then stores is found by whoever makes the same key later, whatever the data have become.
"""

from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import orjson

from orchestrator.core.inputs import InputError
from orchestrator.core.model import NodeKey, Step
from orchestrator.core.outcomes import Completed
from orchestrator.core.slice import ABSENT
from orchestrator.core.turn import Turn
from sequences import document
from sequences.references import References, template_references
from sequences.templates import Template, TemplateError, compile_template

PREFIX: Final = "_cache:"
_APART: Final = "_cache_apart:"
"""Marks outputs that were not merged into `context.data`, although their handler is no built-in."""
MAX_KEY_BYTES: Final = 512
"""Longer keys are hashed: names of the key-value state stand in an index."""


@lru_cache(maxsize=4096)
def _compiled(text: str) -> tuple[Template, References]:
    template = compile_template(text)
    return template, template_references(template)


def key_of(turn: Turn, block: document.Step, key: NodeKey) -> str | None:
    """Give the name under which a step's output is cached; None if it is not, or the key comes to nothing.

    Raises:
        InputError: The template is wrong.
    """
    if block.cache_key is None:
        return None
    template, references = _compiled(block.cache_key)
    try:
        value = template.render(turn.scope(key, references).filtered(block.context_access))
    except TemplateError as error:
        raise InputError(str(error)) from error
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if value is None or not text:
        return None
    return text if len(text.encode()) <= MAX_KEY_BYTES else f"sha256:{sha256(text.encode()).hexdigest()}"


def found(turn: Turn, cache_key: str) -> Any:
    """Give the output that is cached under a key; `ABSENT` if there is none."""
    return turn.state_value(PREFIX + cache_key)


def reused(turn: Turn, step: Step, output: Any, *, is_external: bool) -> Completed:
    """Give what a step comes to whose output was found: it merges as it did when it was made."""
    merges = is_external and turn.state_value(_APART + (step.cache_key or "")) is ABSENT
    return Completed(output=output, merges=merges)


def keep(turn: Turn, step: Step, outcome: Completed, *, is_external: bool) -> None:
    """Cache the output of a step that has ended well."""
    if step.cache_key is not None:
        turn.set_state(PREFIX + step.cache_key, outcome.output)
        if is_external and not outcome.merges and isinstance(outcome.output, dict):
            turn.set_state(_APART + step.cache_key, value=True)
