"""All templates and conditions of a draft, taken apart: what each reads, filters and falls back to (api.md §21)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sequences.blocks import Block, ForEach, Loop, Router, SequenceDefinition, Step, SubSequence, walk
from sequences.collection import is_template
from sequences.expressions import compile_expression
from sequences.lint import lint
from sequences.references import expression_paths, template_chains
from sequences.template_syntax import Chain, FilterSegment, LiteralSegment, PathSegment, is_unclosed
from sequences.templates import compile_template

MAX_PLACES: Final = 2000
"""Templates in one answer; the rest is left out and the answer says so."""


@dataclass(frozen=True, slots=True)
class Place:
    """A text that is resolved when the sequence runs: where it stands and how it is read.

    Attributes:
        block_id: The block; None for what belongs to the whole sequence.
        member: Path of the text in it, such as `params.url`.
        kind: `template`, `expression` or `path`, the bare path of a for_each.
    """

    block_id: str | None
    member: str
    kind: str
    text: str


def inspect_template(template: Any) -> dict[str, Any]:
    """Take one JSON value apart, usually a text."""
    return _answer(list(_texts(None, "template", template)), warnings=())


def inspect_definition(definition: SequenceDefinition) -> dict[str, Any]:
    """Take all templates and conditions of a definition apart."""
    places = list(islice(places_of(definition), MAX_PLACES + 1))
    return _answer(places, warnings=lint(definition))


def places_of(definition: SequenceDefinition) -> Iterator[Place]:
    """Yield every text that is resolved when a sequence runs, in document order."""
    for tree in (definition.blocks, definition.on_failure or (), definition.on_cancel or ()):
        for block in walk(tree):
            yield from _of_block(block)
    hooks = definition.interceptors
    for name in type(hooks).model_fields if hooks is not None else ():
        if (hook := getattr(hooks, name)) is not None:
            yield from _texts(None, f"interceptors.{name}.params", hook.params)


def _of_block(block: Block) -> Iterator[Place]:
    match block:
        case Step():
            yield from _of_step(block)
        case Loop():
            yield from _conditions(block.id, {"condition": block.condition, "break_on": block.break_on})
        case ForEach() if is_template(block.collection):
            yield Place(block.id, "collection", "template", block.collection)
        case ForEach():
            yield Place(block.id, "collection", "path", block.collection)
        case Router():
            yield from _conditions(
                block.id, {f"routes.{number}.condition": route.condition for number, route in enumerate(block.routes)}
            )
        case SubSequence():
            yield from _texts(block.id, "input", block.input)


def _of_step(step: Step) -> Iterator[Place]:
    yield from _conditions(step.id, {"when": step.when, "retry.retry_if": step.retry.retry_if if step.retry else None})
    params = step.params
    if step.handler == "assert" and isinstance(params, dict) and isinstance(params.get("condition"), str):
        yield from _conditions(step.id, {"params.condition": params["condition"]})
        params = {name: value for name, value in params.items() if name != "condition"}
    yield from _texts(step.id, "params", params)
    for member in ("cache_key", "rate_limit_key", "resource_pool"):
        yield from _texts(step.id, member, getattr(step, member))
    if step.on_deadline_breach is not None:
        yield from _texts(step.id, "on_deadline_breach.params", step.on_deadline_breach.params)


def _conditions(block_id: str, conditions: dict[str, str | None]) -> Iterator[Place]:
    for member, text in conditions.items():
        if text is not None:
            yield Place(block_id, member, "expression", text)


def _texts(block_id: str | None, member: str, value: Any) -> Iterator[Place]:
    waiting: list[tuple[str, Any]] = [(member, value)]
    while waiting:
        path, current = waiting.pop()
        if isinstance(current, str):
            if "{{" in current:
                yield Place(block_id, path, "template", current)
        elif isinstance(current, dict):
            waiting.extend((f"{path}.{key}", inner) for key, inner in reversed(current.items()))
        elif isinstance(current, list):
            waiting.extend((f"{path}.{number}", current[number]) for number in reversed(range(len(current))))


def _answer(places: list[Place], *, warnings: tuple[str, ...]) -> dict[str, Any]:
    templates = [_described(place) for place in places[:MAX_PLACES]]
    reads = sorted({path for template in templates for each in template["expressions"] for path in each["reads"]})
    roots: dict[str, list[str]] = {}
    for path in reads:
        roots.setdefault(path.partition(".")[0], []).append(path)
    return {
        "templates": templates,
        "reads": roots,
        "warnings": list(warnings),
        "is_complete": len(places) <= MAX_PLACES,
    }


def _described(place: Place) -> dict[str, Any]:
    described = {"block_id": place.block_id, "member": place.member, "kind": place.kind, "text": place.text}
    match place.kind:
        case "expression":
            compiled = compile_expression(place.text)
            entry = {"expression": place.text, "reads": list(expression_paths(place.text)), "filters": []}
            return {**described, "expressions": [{**entry, "fallbacks": []}], "error": compiled.error}
        case "path":
            entry = {"expression": place.text, "reads": [place.text.strip()], "filters": [], "fallbacks": []}
            return {**described, "expressions": [entry], "error": None}
        case _:
            error = "unclosed `{{`" if is_unclosed(place.text) else None
            chains = template_chains(compile_template(place.text))
            return {**described, "expressions": [_of_chain(chain) for chain in chains], "error": error}


def _of_chain(chain: Chain) -> dict[str, Any]:
    """Take one `{{ … }}` apart. A word that is no known root may be a literal: it counts as a fallback."""
    first, *rest = chain.segments
    paths = [segment for segment in chain.segments if isinstance(segment, PathSegment)]
    arguments = [
        argument
        for segment in rest
        if isinstance(segment, FilterSegment)
        for argument in segment.arguments
        if isinstance(argument, PathSegment) and argument.is_static
    ]
    read = [path for path in (*paths, *arguments) if path is first or path.is_static]
    return {
        "expression": chain.text,
        "reads": list(dict.fromkeys(".".join((path.root, *path.keys)) for path in read)),
        "filters": [segment.name for segment in rest if isinstance(segment, FilterSegment)],
        "fallbacks": [segment.text for segment in rest if isinstance(segment, LiteralSegment | PathSegment)],
    }
