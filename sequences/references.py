"""What a template or an expression can read, known before it is evaluated, so that only that is loaded.

An answer may name more than evaluation reads, never less.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

from sequences.collection import is_template
from sequences.expression_nodes import (
    ArithmeticNode,
    ArrayNode,
    Bad,
    BooleanNode,
    CallNode,
    ChoiceNode,
    ComparisonNode,
    NegativeNode,
    Node,
    NotNode,
    PathNode,
    WordNode,
)
from sequences.expression_nodes import Literal as LiteralNode
from sequences.expressions import compile_expression
from sequences.template_syntax import Chain, FilterSegment, LiteralSegment, PathSegment, Segment, read_path
from sequences.templates import (
    ArrayTemplate,
    MixedText,
    ObjectTemplate,
    Template,
    WholeText,
    compile_params,
    compile_template,
)


class All(Enum):
    """The type of `ALL`."""

    ALL = "all"


ALL: Final = All.ALL
"""Every key: something reads the section as a whole."""

Keys = frozenset[str] | Literal[All.ALL]


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Sections, and keys of sections, that an evaluation can read.

    Attributes:
        outputs, state: Block ids and state keys, or `ALL`.
        words: First words that are no root: for_each variables, hook roots, `iteration`; in an expression also keys of
            `context.data`, so `data` is then true.
    """

    outputs: Keys = frozenset()
    state: Keys = frozenset()
    data: bool = False
    config: bool = False
    runtime: bool = False
    session: bool = False
    words: frozenset[str] = frozenset()

    def __or__(self, other: "References") -> "References":
        """Return what either can read."""
        return _merged((self, other))


NOTHING: Final = References()

Kind = Literal["template", "expression", "collection"]


def references(value: Any, *, kind: Kind) -> References:
    """Return what a value can read: templates in any JSON value, one expression, or a for_each `collection`.

    >>> sorted(references("{{ outputs.a.x | outputs.b }}", kind="template").outputs)
    ['a', 'b']
    """
    match kind:
        case "expression":
            return _merged(_of_node(compile_expression(value).node))
        case "collection" if not is_template(value):
            path = read_path(value.strip())
            return References(data=True) | _of_path(path.root, path.keys)
        case _:
            return template_references(compile_template(value))


def params_references(handler: str, params: Any) -> References:
    """Return what the params of a step can read, the condition of an `assert` and the like included."""
    found = template_references(compile_params(handler, params))
    code = {"assert": "condition", "transform": "expression"}.get(handler)
    if code and isinstance(params, dict) and isinstance(params.get(code), str):
        found |= references(params[code], kind="expression")
    return found


def template_references(template: Template) -> References:
    """Return what a compiled template can read."""
    return _merged(_of_path(path.root, path.keys) for path in template_paths(template))


def template_paths(template: Template) -> Iterator[PathSegment]:
    """Yield every path in a compiled template, words that may be literals included."""
    for chain in template_chains(template):
        for segment in chain.segments:
            yield from _segment_paths(segment)


def template_chains(template: Template) -> Iterator[Chain]:
    """Yield every `{{ … }}` of a compiled template."""
    match template:
        case WholeText():
            yield template.chain
        case MixedText():
            yield from (piece for piece in template.pieces if isinstance(piece, Chain))
        case ArrayTemplate():
            for element in template.elements:
                yield from template_chains(element)
        case ObjectTemplate():
            for _, member in template.members:
                yield from template_chains(member)
        case _:
            return


def _segment_paths(segment: Segment) -> Iterator[PathSegment]:
    match segment:
        case PathSegment():
            yield segment
        case FilterSegment():
            yield from (argument for argument in segment.arguments if isinstance(argument, PathSegment))
        case LiteralSegment():
            return


def _of_path(root: str, keys: tuple[str, ...]) -> References:
    match root:
        case "outputs" | "steps":
            return References(outputs=frozenset(keys[:1]) if keys else ALL)
        case "state":
            return References(state=frozenset(keys[:1]) if keys else ALL)
        case "data" | "input":
            return References(data=True)
        case "config":
            return References(config=True)
        case "context":
            section = keys[0] if keys else ""
            return References(data=section in {"", "data"}, config=section in {"", "config"})
        case "runtime":
            return References(runtime=True)
        case "session":
            return References(session=True)
        case "instance_id":
            return NOTHING
        case _:
            return References(words=frozenset({root}))


def expression_paths(text: str) -> tuple[str, ...]:
    """Return every path a condition names, as it is written, each once.

    >>> expression_paths("data.n > 1 && contains(outputs.a.tags, vip)")
    ('data.n', 'outputs.a.tags', 'vip')
    """
    found: dict[str, None] = {}
    waiting = [compile_expression(text).node]
    while waiting:
        node = waiting.pop()
        match node:
            case PathNode():
                found[".".join((node.root, *node.keys))] = None
            case WordNode():
                found[".".join((node.word, *node.keys))] = None
            case _:
                waiting.extend(reversed(_children(node)))
    return tuple(found)


def _of_node(node: Node) -> Iterator[References]:
    match node:
        case PathNode():
            yield _of_path(node.root, node.keys)
        case WordNode():
            yield References(data=True, words=frozenset({node.word}))
        case LiteralNode() | Bad():
            return
        case _:
            for child in _children(node):
                yield from _of_node(child)


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case CallNode():
            return node.args
        case ArrayNode():
            return node.elements
        case NotNode() | NegativeNode():
            return (node.operand,)
        case ArithmeticNode():
            return (node.first, *(operand for _, operand in node.rest))
        case ComparisonNode():
            return (node.left, node.right)
        case BooleanNode():
            return node.operands
        case ChoiceNode():
            return (node.condition, node.yes, node.no)
        case _:
            return ()


def _merged(parts: Iterable[References]) -> References:
    distinct = set(parts)
    return References(
        outputs=_union(part.outputs for part in distinct),
        state=_union(part.state for part in distinct),
        data=any(part.data for part in distinct),
        config=any(part.config for part in distinct),
        runtime=any(part.runtime for part in distinct),
        session=any(part.session for part in distinct),
        words=frozenset().union(*(part.words for part in distinct)),
    )


def _union(parts: Iterable[Keys]) -> Keys:
    keys: set[str] = set()
    for part in parts:
        if part is ALL:
            return ALL
        keys |= part
    return frozenset(keys)
