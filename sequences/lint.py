"""Warnings about a valid definition: probably a mistake, never a reason to refuse it (§1)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sequences.document import (
    ABSplit,
    Block,
    Delay,
    ForEach,
    Loop,
    Parallel,
    Race,
    Router,
    Saga,
    SequenceDefinition,
    Step,
    SubSequence,
    TryCatch,
    block_lists,
    walk,
)
from sequences.expressions import compile_expression
from sequences.filters import FILTERS
from sequences.handlers import BUILTIN_HANDLERS, REQUIRED_PARAMS, RESERVED_HANDLERS, is_unsupported
from sequences.json_values import texts_in
from sequences.references import ALL, References, params_references, references, template_chains
from sequences.scope import ROOTS
from sequences.spelling import NearNames
from sequences.template_syntax import Chain, PathSegment, is_unclosed
from sequences.templates import compile_params, compile_template

MAX_WARNINGS: Final = 200
HOOK_WORDS: Final = frozenset({"step", "signal", "instance", "error"})
_DATE: Final = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])", re.ASCII)
_LOCAL_TIME: Final = re.compile(rf"{_DATE.pattern}T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d", re.ASCII)
_HANDLER_NAMES: Final = NearNames(BUILTIN_HANDLERS)
_FILTER_NAMES: Final = NearNames(FILTERS)


def lint(definition: SequenceDefinition) -> tuple[str, ...]:
    """Return the warnings of a definition in document order, each once, at most 200."""
    return tuple(islice(dict.fromkeys(_all_warnings(definition)), MAX_WARNINGS))


@dataclass(frozen=True, slots=True)
class _Place:
    """What is known where a block stands: ids of the document, words a for_each or a loop around it binds, and which
    of them are items."""

    ids: frozenset[str]
    words: frozenset[str]
    items: frozenset[str] = frozenset()


def _all_warnings(definition: SequenceDefinition) -> Iterator[str]:
    trees = (definition.blocks, definition.on_failure or (), definition.on_cancel or ())
    ids = frozenset(block.id for tree in trees for block in walk(tree))
    yield from _after_failure(definition.blocks)
    for number, tree in enumerate(trees):
        yield from _tree_warnings(tree, _Place(ids, HOOK_WORDS if number else frozenset()))
    yield from _interceptor_warnings(definition, _Place(ids, HOOK_WORDS))


def _tree_warnings(blocks: tuple[Block, ...], place: _Place) -> Iterator[str]:
    for block in blocks:
        for warning in _block_warnings(block, place):
            yield f"block `{block.id}`: {warning}"
        items = place.items | {block.item_var} if isinstance(block, ForEach) else place.items
        inside = _Place(place.ids, place.words | _bound_words(block), items)
        for part in block_lists(block):
            yield from _tree_warnings(part, inside)


def _bound_words(block: Block) -> frozenset[str]:
    """Name what templates find in a block; `iteration` of a loop is for its conditions only."""
    return frozenset({block.item_var, "index", "item_index"}) if isinstance(block, ForEach) else frozenset()


def _after_failure(blocks: tuple[Block, ...]) -> Iterator[str]:
    for position, block in enumerate(blocks):
        if isinstance(block, Step) and block.handler == "fail" and block.when is None:
            if position + 1 < len(blocks):
                yield f"block `{blocks[position + 1].id}`: never reached, after the root `fail` step `{block.id}`"
            return


def _block_warnings(block: Block, place: _Place) -> Iterator[str]:
    match block:
        case Step():
            yield from _step_warnings(block, place)
        case Parallel():
            yield from _if(any(not branch for branch in block.branches), "a branch is empty")
        case Race():
            yield from _if(len(block.branches) == 1, "a race with one branch decides nothing")
            yield from _if(any(not branch for branch in block.branches), "a branch is empty")
        case Router():
            yield from _if(any(not route.blocks for route in block.routes), "a route is empty")
            yield from _condition_warnings([route.condition for route in block.routes], place)
        case TryCatch():
            yield from _if(not block.catch_block, "the catch list is empty: failures are swallowed")
        case ABSplit():
            yield from _if(any(not variant.weight for variant in block.variants), "a variant has weight 0")
        case Saga():
            yield from _if(not block.steps, "the saga is empty")
        case Loop():
            yield from _condition_warnings((block.condition, block.break_on), place)
        case ForEach():
            yield from _if(
                block.item_var in place.items, f"`item_var` {block.item_var!r} hides the one of a for_each around"
            )
            yield from _template_warnings(block.collection, place)
            yield from _unknown_outputs(references(block.collection, kind="collection"), place)
        case SubSequence():
            yield from _template_warnings(block.input, place)
            yield from _unknown_outputs(references(block.input, kind="template"), place)


def _if(holds: object, warning: str) -> Iterator[str]:
    if holds:
        yield warning


def _step_warnings(step: Step, place: _Place) -> Iterator[str]:
    yield from _handler_warnings(step)
    yield from _if(
        step.timeout is not None and step.deadline is not None and step.timeout > step.deadline,
        "`timeout` is longer than `deadline`",
    )
    yield from _if(step.on_deadline_breach and step.deadline is None, "`on_deadline_breach` without `deadline`")
    yield from _if(step.fallback_handler == step.handler, "`fallback_handler` is the handler itself")
    yield from _params_warnings(step, place)
    templated = (step.cache_key, step.rate_limit_key, step.resource_pool)
    breach = None if step.on_deadline_breach is None else step.on_deadline_breach.params
    for value in (*templated, breach):
        yield from _template_warnings(value, place)
        yield from _unknown_outputs(references(value, kind="template"), place)
    yield from _condition_warnings((step.retry.retry_if if step.retry else None,), place)
    if step.when is not None:
        guard = compile_expression(step.when)
        yield from _if(guard.error, f"the guard {_shown(step.when)} cannot be read: the step will fail ({guard.error})")
        yield from _unknown_outputs(references(step.when, kind="expression"), place)
    if step.delay is not None:
        yield from _delay_warnings(step.delay)


def _handler_warnings(step: Step) -> Iterator[str]:
    yield from _misspelt(step.handler)
    for other in (step.fallback_handler, step.on_deadline_breach.handler if step.on_deadline_breach else None):
        if other is not None:
            yield from _misspelt(other)
    yield from _if(
        is_unsupported(step.handler), f"handler `{step.handler}` is of an unsupported kind: the step will fail"
    )
    yield from _if(step.handler in RESERVED_HANDLERS, f"handler `{step.handler}` is reserved: the step will fail")


def _misspelt(handler: str) -> Iterator[str]:
    if (meant := _HANDLER_NAMES.nearest(handler)) is not None:
        yield f"unknown handler `{handler}`, did you mean `{meant}`?"


def _params_warnings(step: Step, place: _Place) -> Iterator[str]:
    yield from _template_warnings(step.params, place, handler=step.handler)
    yield from _unknown_outputs(params_references(step.handler, step.params), place)
    if isinstance(step.params, dict | None):
        given = step.params or {}
        for name in REQUIRED_PARAMS.get(step.handler, ()):
            yield from _if(name not in given, f"missing required param `{name}` of `{step.handler}`")


def _delay_warnings(delay: Delay) -> Iterator[str]:
    local = delay.fire_at_local
    yield from _if(
        local is not None and _LOCAL_TIME.fullmatch(local) is None,
        f"`fire_at_local` {_shown(local or '')} is no local time: `duration` counts",
    )
    for holiday in delay.holidays:
        yield from _if(_DATE.fullmatch(holiday) is None, f"holiday {_shown(holiday)} is no date and is ignored")


def _condition_warnings(conditions: Iterable[str | None], place: _Place) -> Iterator[str]:
    """Warn about conditions that are read leniently: what cannot be read counts as false."""
    for condition in conditions:
        if condition is not None:
            error = compile_expression(condition).error
            yield from _if(error, f"condition {_shown(condition)} cannot be read as it is written ({error})")
            yield from _unknown_outputs(references(condition, kind="expression"), place)


def _unknown_outputs(read: References, place: _Place) -> Iterator[str]:
    if read.outputs is ALL:
        return
    for name in sorted(read.outputs - place.ids):
        plain_id = name.partition("[")[0]
        yield from _if(plain_id not in place.ids, f"reference to the output of an unknown block `{name}`")


def _interceptor_warnings(definition: SequenceDefinition, place: _Place) -> Iterator[str]:
    hooks = definition.interceptors
    if hooks is None:
        return
    for name in type(hooks).model_fields:
        hook = getattr(hooks, name)
        if hook is not None:
            for warning in (*_misspelt(hook.handler), *_template_warnings(hook.params, place)):
                yield f"interceptor `{name}`: {warning}"


def _template_warnings(value: Any, place: _Place, *, handler: str = "") -> Iterator[str]:
    if value is None:
        return
    template = compile_params(handler, value) if handler else compile_template(value)
    for chain in template_chains(template):
        yield from _chain_warnings(chain, place)
    for text in texts_in(value):
        yield from _if(is_unclosed(text), f"unclosed `{{{{` in {_shown(text)}")


def _chain_warnings(chain: Chain, place: _Place) -> Iterator[str]:
    first = chain.segments[0]
    if isinstance(first, PathSegment):
        if not first.is_static and first.root not in place.words:
            yield f"unknown template root: {_short(first.text)}"
        if first.root == "context" and first.keys and first.keys[0].partition("[")[0] not in {"data", "config"}:
            yield f"unknown context section: {_short(first.keys[0])}"
    for segment in chain.segments[1:]:
        if isinstance(segment, PathSegment) and segment.root not in ROOTS | place.words:
            yield from _filter_warnings(segment.text)


def _filter_warnings(text: str) -> Iterator[str]:
    """Warn about a word that looks like a filter: called like one, or spelt nearly like one."""
    name, parenthesis, _ = text.partition("(")
    if parenthesis and text.endswith(")") and name.strip().isidentifier():
        yield f"unknown filter `{_short(name.strip())}`"
    elif (meant := _FILTER_NAMES.nearest(text)) is not None:
        yield f"unknown filter `{text}`, did you mean `{meant}`?"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}…"


def _shown(text: str) -> str:
    return repr(_short(text))
