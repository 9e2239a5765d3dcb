"""Templates: `{{ path | fallback | filter }}` inside any string of a JSON value (§6).

A template is compiled once and rendered often. What contains no `{{` is returned as it is, not copied; what a path
leads to is put in place without being scanned again. Object keys are never templates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sequences.filters import TemplateError, apply_filter, limited, text_of
from sequences.functions import length
from sequences.json_values import Budget, OutOfBudget, measure
from sequences.scope import MISSING, Scope, follow, resolve
from sequences.template_syntax import (
    Chain,
    FilterSegment,
    LiteralSegment,
    PathSegment,
    Segment,
    split_text,
)

__all__ = ["Template", "TemplateError", "compile_params", "compile_template", "render", "render_params"]

MAX_DEPTH: Final = 256
MAX_WORK: Final = 500_000
"""Units of one rendering, a unit being 64 characters or an element: 32 MiB of text, and some 100 ms."""
TOO_MUCH: Final = "the template makes too much of its data"


class Run:
    """One rendering: what it reads, how much it may still do, and which paths it has read.

    Writing text, filtering and putting a value in place for the second time cost; one budget for all of it bounds the
    time and the size of what comes out, however short the template is.
    """

    __slots__ = ("_seen", "budget", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.budget = Budget(MAX_WORK)
        self._seen: set[tuple[str, tuple[str, ...]]] = set()

    def charge(self, value: Any) -> None:
        """Pay for reading or writing a whole value."""
        if isinstance(value, str):
            self.budget.charge(1 + (len(value) >> 6))
        elif isinstance(value, list | Mapping):
            measure(value, self.budget)

    def note(self, root: str, keys: tuple[str, ...], value: Any) -> None:
        """Pay for a path that is read again: its value would stand in the result once more."""
        if not isinstance(value, str | list | Mapping):
            return
        place = (root, keys)
        if place in self._seen:
            self.charge(value)
        else:
            self._seen.add(place)


@dataclass(frozen=True, slots=True)
class Constant:
    """A value without any template in it."""

    value: Any

    def fill(self, run: Run) -> Any:
        """Return the value itself."""
        return self.value

    def render(self, scope: Scope) -> Any:
        """Return the value itself."""
        return self.value


class _Rendered:
    """What all other templates share."""

    __slots__ = ()

    def fill(self, run: Run) -> Any:
        """Resolve as part of a rendering; raises `TemplateError` and `OutOfBudget`."""
        raise NotImplementedError

    def render(self, scope: Scope) -> Any:
        """Resolve; raises `TemplateError`."""
        try:
            return self.fill(Run(scope))
        except OutOfBudget as error:
            raise TemplateError(TOO_MUCH) from error


@dataclass(frozen=True, slots=True)
class WholeText(_Rendered):
    """A text that is one expression: the result keeps its type."""

    chain: Chain

    def fill(self, run: Run) -> Any:
        """Resolve the expression."""
        return resolve_chain(self.chain, run)[0]


@dataclass(frozen=True, slots=True)
class MixedText(_Rendered):
    """A text with expressions in it: the result is text."""

    pieces: tuple[str | Chain, ...]

    def fill(self, run: Run) -> Any:
        """Put the pieces together."""
        parts: list[str] = []
        for piece in self.pieces:
            parts.append(piece if isinstance(piece, str) else text_of(resolve_chain(piece, run)[0]))
            run.charge(parts[-1])
        return "".join(parts)


@dataclass(frozen=True, slots=True)
class ArrayTemplate(_Rendered):
    """An array with a template in it."""

    elements: tuple["Template", ...]

    def fill(self, run: Run) -> Any:
        """Render every element."""
        return [element.fill(run) for element in self.elements]


@dataclass(frozen=True, slots=True)
class ObjectTemplate(_Rendered):
    """An object with a template in it; keys stay as they are."""

    members: tuple[tuple[str, "Template"], ...]

    def fill(self, run: Run) -> Any:
        """Render every member."""
        return {key: member.fill(run) for key, member in self.members}


Template = Constant | WholeText | MixedText | ArrayTemplate | ObjectTemplate
"""A compiled value; `render(scope)` gives the resolved one."""


def compile_template(value: Any) -> Template:
    """Compile any JSON value. Never raises but for values nested deeper than 256 levels (`TemplateError`)."""
    return _compile(value, 0)


def compile_params(handler: str, params: Any) -> Template:
    """Compile the params of a step, leaving alone what its handler reads as code.

    Exempt are `assert.condition`, the literal `blocks` of `self_modify`, and the `expression` a `transform` with a
    `target` evaluates by itself (§6, §11).
    """
    exempt = _exempt_param(handler, params)
    if exempt is None:
        return compile_template(params)
    members = {key: Constant(value) if key == exempt else _compile(value, 1) for key, value in params.items()}
    return _object(params, members)


def render(value: Any, scope: Scope) -> Any:
    """Resolve every template in a JSON value; the value itself comes back when there is none.

    >>> render({"n": "{{ data.n }}", "text": "n={{ data.n }}"}, Scope(data={"n": 5}))
    {'n': 5, 'text': 'n=5'}

    Raises:
        TemplateError: A root is unknown, a filter has a bad argument, or a result is too long.
    """
    if isinstance(value, str):
        return _compile_text(value).render(scope) if "{{" in value else value
    return compile_template(value).render(scope)


def render_params(handler: str, params: Any, scope: Scope) -> Any:
    """Resolve the params of a step, but not what its handler reads as code; see `compile_params`."""
    return compile_params(handler, params).render(scope)


def _exempt_param(handler: str, params: Any) -> str | None:
    if not isinstance(params, dict):
        return None
    match handler:
        case "assert" if "condition" in params:
            return "condition"
        case "self_modify" if not isinstance(params.get("blocks"), str | None):
            return "blocks"
        case "transform" if "target" in params and "value" not in params and "expression" in params:
            return "expression"
        case _:
            return None


def _compile(value: Any, depth: int) -> Template:
    if isinstance(value, str):
        return _compile_text(value) if "{{" in value else Constant(value)
    if not isinstance(value, list | dict) or not value:
        return Constant(value)
    if depth > MAX_DEPTH:
        raise TemplateError(f"params are nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return _object(value, {key: _compile(member, depth + 1) for key, member in value.items()})
    elements = tuple(_compile(element, depth + 1) for element in value)
    return Constant(value) if all(isinstance(element, Constant) for element in elements) else ArrayTemplate(elements)


def _object(value: dict[str, Any], members: dict[str, Template]) -> Template:
    if all(isinstance(member, Constant) for member in members.values()):
        return Constant(value)
    return ObjectTemplate(tuple(members.items()))


def _compile_text(text: str) -> Template:
    return _compile_cached(text) if len(text) <= 4096 else _from_pieces(text, split_text(text))


def _from_pieces(text: str, pieces: tuple[str | Chain, ...]) -> Template:
    chains = [piece for piece in pieces if isinstance(piece, Chain)]
    if not chains:
        return Constant(text)
    return WholeText(chains[0]) if len(pieces) == 1 else MixedText(pieces)


@lru_cache(maxsize=4096)
def _compile_cached(text: str) -> Template:
    return _from_pieces(text, split_text(text))


def resolve_chain(chain: Chain, run: Run) -> tuple[Any, int]:
    """Try segments from the left until one gives a value; after that only filters have an effect (§6.2).

    Returns:
        The value, and the number of the segment that gave it; -1 when none did.

    Raises:
        TemplateError: A root is unknown, a filter has a bad argument, or a result is too long.
        OutOfBudget: The rendering has done all it may do.
    """
    value: Any = None
    source = -1
    is_closed = False
    for index, segment in enumerate(chain.segments):
        before = value
        if isinstance(segment, FilterSegment):
            value = _apply(segment, value, run)
        elif value is None and not is_closed:
            value, is_closed = _resolve_segment(segment, run, is_first=index == 0)
        if before is None and value is not None:
            source = index
    return value, source


def _resolve_segment(segment: Segment, run: Run, *, is_first: bool) -> tuple[Any, bool]:
    """Return a segment's value and whether it ends the chain, as a literal does."""
    match segment:
        case PathSegment():
            found = _resolve_path(segment, run)
            if found is not MISSING:
                return found, False
            if is_first:
                raise TemplateError(f"unknown template root: {segment.text}")
            return segment.text, True
        case LiteralSegment():
            return segment.value, True
        case _:
            return None, False


def _resolve_path(path: PathSegment, run: Run) -> Any:
    """Return what a path leads to; `MISSING` when its root is unknown, so that it is no path at all."""
    value: Any
    if path.is_static:
        if path.root == "context" and path.keys and path.keys[0].partition("[")[0] not in {"data", "config"}:
            raise TemplateError(f"unknown context section: {path.keys[0]}")
        value = None if path.is_indexed else resolve(run.scope, path.root, path.keys)
    else:
        value = run.scope.variable(path.root)
        if value is MISSING:
            return _unknown(path)
        value = None if path.is_indexed else follow(value, path.keys)
    run.note(path.root, path.keys, value)
    return value if path.function is None else _call(path.function, value, run)


def _unknown(path: PathSegment) -> Any:
    if path.function is not None:
        raise TemplateError(f"unknown template root: {path.text}")
    return MISSING


def _call(function: str, value: Any, run: Run) -> Any:
    if function == "len":
        return length(value, run.budget)
    text = limited(text_of([value])[1:-1])
    run.charge(text)
    return text


def _apply(segment: FilterSegment, value: Any, run: Run) -> Any:
    """Apply a filter, paying for what it reads and for what it makes."""
    arguments = tuple(_argument(argument, run) for argument in segment.arguments)
    for read in (value, *arguments):
        run.charge(read)
    result = apply_filter(segment.name, value, arguments)
    if result is not value:
        run.charge(result)
    return result


def _argument(argument: PathSegment | LiteralSegment, run: Run) -> Any:
    if isinstance(argument, LiteralSegment):
        return argument.value
    found = _resolve_path(argument, run)
    return argument.text if found is MISSING else found
