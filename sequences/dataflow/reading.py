"""Where a definition reads its data: every block, and every reference in its texts (§15.1)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sequences.blocks import Block, ForEach, Loop, Router, SequenceDefinition, Step, SubSequence, block_lists
from sequences.json_values import texts_in

_REFERENCE: Final = re.compile(r"(?<![\w.])(outputs|data|state|config)\.([A-Za-z0-9_\-.\[\]]*)")
_SEGMENT: Final = re.compile(r"[^.\[\]]+")
_SINGLE_PIPE: Final = re.compile(r"(?<!\|)\|(?!\|)")


@dataclass(frozen=True, slots=True)
class Reference:
    """A path that is read, such as `outputs.charge.id`.

    Attributes:
        root, path: What stands before and behind the first dot.
        has_fallback: Whether a pipe follows before the expression ends, a filter's included.
    """

    root: str
    path: str
    has_fallback: bool

    @property
    def text(self) -> str:
        """Return the reference as it is written."""
        return f"{self.root}.{self.path}"

    @property
    def segments(self) -> tuple[str, ...]:
        """Return the keys and indexes of the path; `items[0]` and `items.0` are alike."""
        return tuple(_SEGMENT.findall(self.path))


@dataclass(frozen=True, slots=True)
class Consumer:
    """A block, what it reads, and the names its for_eachs bind over `data`."""

    block: Block
    references: tuple[Reference, ...]
    bound: frozenset[str]


def consumers(definition: SequenceDefinition) -> Iterator[Consumer]:
    """Yield every block of `blocks` at any depth, in document order, with what it reads."""
    waiting: list[tuple[Block, frozenset[str]]] = [(block, frozenset()) for block in reversed(definition.blocks)]
    while waiting:
        block, bound = waiting.pop()
        yield Consumer(block, references_in(_read_members(block)), bound)
        inside = bound | {block.item_var} if isinstance(block, ForEach) else bound
        children = [(child, inside) for part in block_lists(block) for child in part]
        waiting.extend(reversed(children))


def references_in(value: Any) -> tuple[Reference, ...]:
    """Find the references in all texts of a JSON value, each once, in the order they are met.

    >>> references_in("{{ outputs.a.x | 0 }} and {{ context.data.y }}")
    (Reference(root='outputs', path='a.x', has_fallback=True),)
    """
    found: dict[Reference, None] = {}
    for text in texts_in(value):
        end = pipe = -1
        for match in _REFERENCE.finditer(text):
            path = match[2].rstrip(".")
            if not _SEGMENT.search(path):
                continue
            if end < match.end():
                end = _position(text.find("}}", match.end()), text)
            if pipe < match.end():
                single = _SINGLE_PIPE.search(text, match.end())
                pipe = len(text) if single is None else single.start()
            found.setdefault(Reference(match[1], path, pipe < end < len(text)))
    return tuple(found)


def _position(found: int, text: str) -> int:
    return len(text) if found < 0 else found


def _read_members(block: Block) -> list[Any]:
    match block:
        case Step():
            return [block.params, block.when]
        case SubSequence():
            return [block.input]
        case Loop():
            return [block.condition, block.break_on]
        case ForEach():
            return [block.collection]
        case Router():
            return [route.condition for route in block.routes]
        case _:
            return []
