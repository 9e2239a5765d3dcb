"""Reading `{{ … }}`: text into pieces, an expression into segments (§6.1, §6.2). What the pieces mean: `templates`.

Reading never fails. Whether a first word is a root depends on the scope (`item` is one inside a for_each), so it is
decided when a template is rendered.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sequences.braces import find_end
from sequences.filters import FILTERS
from sequences.json_values import to_number
from sequences.scope import ROOTS


@dataclass(frozen=True, slots=True)
class PathSegment:
    """A path, or a word that is one if the scope knows it; `function` is `json` or `len` around it."""

    text: str
    root: str
    keys: tuple[str, ...]
    function: str | None = None
    is_indexed: bool = False
    """The root carries a bracket, which is not supported: null."""

    @property
    def is_static(self) -> bool:
        """Tell whether the root is known in every scope."""
        return self.root in ROOTS


@dataclass(frozen=True, slots=True)
class LiteralSegment:
    """A fixed fallback; it ends the chain."""

    text: str
    value: Any


@dataclass(frozen=True, slots=True)
class FilterSegment:
    """A filter; an argument is a constant or a path."""

    name: str
    arguments: tuple["PathSegment | LiteralSegment", ...]


Segment = PathSegment | LiteralSegment | FilterSegment


@dataclass(frozen=True, slots=True)
class Chain:
    """One `{{ … }}`: segments tried from the left."""

    text: str
    segments: tuple[Segment, ...]


def split_text(text: str) -> tuple[str | Chain, ...]:
    """Cut a text at its `{{ … }}` into literal text and chains; an unclosed `{{` and all behind it is literal text."""
    pieces: list[str | Chain] = []
    position = 0
    while (start := text.find("{{", position)) >= 0:
        end = find_end(text, start + 2)
        if end < 0:
            break
        if start > position:
            pieces.append(text[position:start])
        source = text[start + 2 : end]
        pieces.append(_read_short_chain(source) if len(source) <= SHORT_CHAIN else read_chain(source))
        position = end + 2
    if position < len(text):
        pieces.append(text[position:])
    return tuple(pieces)


SHORT_CHAIN: Final = 256
"""Characters of a chain that is read once and remembered: texts repeat the same few."""


@lru_cache(maxsize=2048)
def _read_short_chain(source: str) -> Chain:
    return read_chain(source)


def is_unclosed(text: str) -> bool:
    """Tell whether a text ends with a `{{` that is never closed; quicker than cutting the text."""
    position = 0
    while (start := text.find("{{", position)) >= 0:
        end = find_end(text, start + 2)
        if end < 0:
            return True
        position = end + 2
    return False


def read_chain(source: str) -> Chain:
    """Read what stands between the braces."""
    first, *rest = _split(source, "|", quotes_protect=False)
    segments: list[Segment] = [read_path(first.strip())]
    segments.extend(_read_segment(text.strip()) for text in rest if text.strip())
    return Chain(source.strip(), tuple(segments))


_CALL: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*(?:\((.*)\))?", re.DOTALL)
_FUNCTIONS: Final = frozenset({"json", "len"})


def read_path(text: str) -> PathSegment:
    """Read a segment as a path; every text is one, of a root that may be unknown."""
    inside = _argument_of_function(text)
    if inside is not None and _argument_of_function(inside) is None:
        root, keys, is_indexed = _split_path(inside)
        return PathSegment(text, root, keys, text.partition("(")[0].strip(), is_indexed)
    root, keys, is_indexed = _split_path(text)
    return PathSegment(text, root, keys, None, is_indexed)


def _argument_of_function(text: str) -> str | None:
    """Return the path in `json(path)` or `len(path)`; functions are not put into each other."""
    call = _CALL.fullmatch(text)
    return call[2].strip() if call and call[1] in _FUNCTIONS and call[2] is not None else None


def _split_path(text: str) -> tuple[str, tuple[str, ...], bool]:
    first, *keys = text.split(".")
    root, bracket, _ = first.partition("[")
    return root.strip(), tuple(key.strip() for key in keys), bool(bracket)


def _read_segment(text: str) -> Segment:
    """Read any segment but the first: a quoted text, a function, a filter, a path or a bare word."""
    if (quoted := _unquoted(text)) is not None:
        return LiteralSegment(text, quoted)
    call = _CALL.fullmatch(text)
    if call and call[1] in FILTERS:
        return FilterSegment(call[1], _read_arguments(call[1], call[2]))
    constant = constant_of(text)
    if constant is not text:
        return LiteralSegment(text, constant)
    return read_path(text)


_CONSTANTS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}


def constant_of(text: str) -> Any:
    """Read a bare literal: a number as float, `true`, `false`, `null`; any other word is returned as it is."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    number = to_number(text)
    return text if number is None else number


def _read_arguments(name: str, source: str | None) -> tuple[PathSegment | LiteralSegment, ...]:
    if source is None or not source.strip():
        return ()
    takes_one = name in {"join", "split", "hash"}
    parts = [source] if takes_one else _split(source, ",", quotes_protect=True)
    return tuple(_read_argument(name, index, part.strip()) for index, part in enumerate(parts))


def _read_argument(name: str, index: int, text: str) -> PathSegment | LiteralSegment:
    quoted = _unquoted(text)
    if quoted is not None:
        return LiteralSegment(text, quoted)
    if name == "default":
        return _default_argument(text)
    if name == "replace" and index == 1:
        return read_path(text)
    return LiteralSegment(text, text)


def _default_argument(text: str) -> PathSegment | LiteralSegment:
    constant = constant_of(text)
    if isinstance(constant, float) and re.fullmatch(r"-?\d{1,15}", text, re.ASCII):
        constant = int(text)
    return read_path(text) if constant is text else LiteralSegment(text, constant)


def _unquoted(text: str) -> str | None:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1]:
        return text[1:-1]
    return None


_MARK: Final = re.compile(r"[|,()'\"]")


def _split(source: str, separator: str, *, quotes_protect: bool) -> list[str]:
    """Split outside parentheses. Quotes count inside parentheses, and outside of them only if asked for."""
    parts: list[str] = []
    start = depth = 0
    quote = ""
    for found in _MARK.finditer(source):
        mark = found[0]
        if quote:
            quote = "" if mark == quote else quote
        elif mark in "'\"":
            quote = mark if depth or quotes_protect else ""
        elif mark == "(":
            depth += 1
        elif mark == ")":
            depth = max(depth - 1, 0)
        elif mark == separator and not depth:
            parts.append(source[start : found.start()])
            start = found.end()
    parts.append(source[start:])
    return parts
