"""The template debugger: what a template gives, and for each of its expressions where the value came from (§15.2).

Secrets are hidden before anything is resolved, not afterwards: a filter can no longer disguise one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, TypeGuard

from sequences.filters import TemplateError, text_of
from sequences.json_values import OutOfBudget
from sequences.redaction import REDACTED, holds_redacted, redact, redact_text
from sequences.scope import DEFAULT_RUNTIME, MISSING, Scope, member, resolve
from sequences.template_syntax import Chain, FilterSegment, LiteralSegment, PathSegment, Segment
from sequences.templates import (
    TOO_MUCH,
    ArrayTemplate,
    Constant,
    MixedText,
    ObjectTemplate,
    Run,
    Template,
    WholeText,
    compile_template,
    resolve_chain,
)


class Status(StrEnum):
    """What an expression came to."""

    OK = "ok"
    NULL = "null"
    MISSING = "missing"
    REDACTED = "redacted"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Entry:
    """One `{{ … }}`.

    Attributes:
        source: The path that gave the value, `literal` for a literal, None when nothing gave one.
        fallback_used: Whether it was not the first path that gave the value.
        coerced_to_string: Whether the value was put into text although it is none.
    """

    expression: str
    status: Status
    source: str | None
    fallback_used: bool
    coerced_to_string: bool


@dataclass(frozen=True, slots=True)
class Debugged:
    """A template, resolved under observation; without a result when it cannot be resolved."""

    entries: tuple[Entry, ...]
    result: Any = None
    error: str | None = None

    def document(self) -> dict[str, Any]:
        """Write the answer."""
        entries = [asdict(entry) for entry in self.entries]
        if self.error is not None:
            return {"entries": entries, "error": self.error}
        return {"result": self.result, "result_type": _type_of(self.result), "entries": entries}


def debug(template: Any, *, data: Any = None, config: Any = None, outputs: Mapping[str, Any] | None = None) -> Debugged:
    """Resolve a template, with all secrets replaced, and tell of each expression how it went. Never raises.

    Args:
        template: Any JSON value, at most 200 levels deep; usually a text.
        data, config: Sections of the context.
        outputs: Newest output of each block, by block id.
    """
    scope = Scope(data=redact(data), config=redact(config), outputs=redact(outputs or {}), runtime=DEFAULT_RUNTIME)
    watched = _Watched(Run(scope))
    try:
        result = watched.fill(compile_template(template))
    except OutOfBudget:
        return Debugged(tuple(watched.entries), error=TOO_MUCH)
    except TemplateError as error:
        return Debugged(tuple(watched.entries), error=redact_text(str(error)))
    return Debugged(tuple(watched.entries), redact_text(result) if isinstance(result, str) else redact(result))


class _Watched:
    """A rendering that keeps what each expression came to."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.entries: list[Entry] = []

    def fill(self, template: Template) -> Any:
        match template:
            case Constant():
                return template.value
            case WholeText():
                return self._resolve(template.chain, in_text=False)
            case MixedText():
                return "".join(self._piece(piece) for piece in template.pieces)
            case ArrayTemplate():
                return [self.fill(element) for element in template.elements]
            case ObjectTemplate():
                return {key: self.fill(inner) for key, inner in template.members}

    def _piece(self, piece: str | Chain) -> str:
        text = piece if isinstance(piece, str) else text_of(self._resolve(piece, in_text=True))
        self._run.charge(text)
        return text

    def _resolve(self, chain: Chain, *, in_text: bool) -> Any:
        try:
            value, position = resolve_chain(_up_to_secret(chain, self._run), self._run)
        except (TemplateError, OutOfBudget):
            self.entries.append(Entry(redact_text(chain.text), Status.ERROR, None, False, False))
            raise
        self.entries.append(self._entry(chain, value, position, in_text=in_text))
        return value

    def _entry(self, chain: Chain, value: Any, position: int, *, in_text: bool) -> Entry:
        is_text = isinstance(value, str)
        return Entry(
            expression=redact_text(chain.text),
            status=self._status(chain, value, position),
            source=self._source(chain, position),
            fallback_used=position > 0 and not _is_of_nothing(chain, position),
            coerced_to_string=in_text and not is_text,
        )

    def _status(self, chain: Chain, value: Any, position: int) -> Status:
        if value is None or _is_of_nothing(chain, position):
            is_there = any(self._is_there(segment) for segment in chain.segments)
            return Status.NULL if is_there else Status.MISSING
        return Status.REDACTED if holds_redacted(value) else Status.OK

    def _source(self, chain: Chain, position: int) -> str | None:
        if position < 0 or _is_of_nothing(chain, position):
            there = next((segment for segment in chain.segments if self._is_there(segment)), None)
            return "literal" if isinstance(there, LiteralSegment) else redact_text(there.text) if there else None
        segment = chain.segments[position]
        if isinstance(segment, PathSegment) and self._is_path(segment):
            return redact_text(segment.text)
        if isinstance(segment, FilterSegment) and isinstance(segment.arguments[0], PathSegment):
            return redact_text(segment.arguments[0].text)
        return "literal"

    def _is_path(self, segment: PathSegment) -> bool:
        return segment.is_static or self._run.scope.variable(segment.root) is not MISSING

    def _is_there(self, segment: Segment) -> TypeGuard[PathSegment | LiteralSegment]:
        """Tell whether a path leads to something, be it null; a literal null is there as well."""
        if isinstance(segment, LiteralSegment):
            return True
        if not isinstance(segment, PathSegment) or not segment.is_static or segment.is_indexed:
            return False
        if not segment.keys:
            return True
        around = resolve(self._run.scope, segment.root, segment.keys[:-1])
        return member(around, segment.keys[-1]) is not MISSING


def _is_of_nothing(chain: Chain, position: int) -> bool:
    """Tell whether a filter made the value of null, as `upper` makes empty text; `default` is a fallback instead."""
    segment = chain.segments[position]
    return position >= 0 and isinstance(segment, FilterSegment) and segment.name != "default"


def _up_to_secret(chain: Chain, run: Run) -> Chain:
    """Leave out the filters behind a value that was hidden, so that the mark stays whole."""
    bare = Chain(chain.text, tuple(each for each in chain.segments if not isinstance(each, FilterSegment)))
    return bare if resolve_chain(bare, run)[0] == REDACTED else chain


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
