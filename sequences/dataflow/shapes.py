"""Shapes: what a JSON Schema says about the form of a value, without what only narrows it (lengths, patterns, ranges).

A schema is read once into a tree of shapes; the report follows paths through it and the bindings are written from it.
References inside the schema are put in place; one that leads back into itself is an unknown shape. Several schemas
that must all hold (`allOf`, a `$ref` with neighbours) are laid over each other, several of which one may hold
(`anyOf`, `oneOf`, a list of types) become a union.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

MAX_DEPTH: Final = 32
"""Levels of subschemas below the schema itself."""
MAX_NODES: Final = 4096
"""Subschemas of one schema, its references put in place."""
MAX_LAID: Final = 4 * MAX_NODES
"""Subschemas of one schema that are laid over others; bounds what lists of lists in `allOf` cost."""
MAX_ALL_NODES: Final = 65_536
"""Subschemas of all schemas of one definition; bounds the answer to some megabytes."""

_TYPES: Final = frozenset({"string", "integer", "number", "boolean", "null"})
_OBJECT_WORDS: Final = ("properties", "required", "additionalProperties", "patternProperties", "unevaluatedProperties")
_ARRAY_WORDS: Final = ("items", "prefixItems", "minItems")


class DataflowLimit(ValueError):
    """A schema is too deep or too large to be analysed; the author's fault, HTTP 400."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Any value."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A string, integer, number, boolean or null."""

    type: str


@dataclass(frozen=True, slots=True)
class Constants:
    """One of some values; `texts` are they as JSON, sorted."""

    texts: tuple[str, ...]

    @property
    def has_null(self) -> bool:
        """Tell whether null is one of them."""
        return "null" in self.texts


@dataclass(frozen=True, slots=True)
class Member:
    """A named member of an object."""

    name: str
    shape: "Shape"
    is_required: bool


@dataclass(frozen=True, slots=True)
class Object:
    """An object; its members are sorted. `others` is the shape of what is not named, None if there can be no more."""

    members: tuple[Member, ...]
    others: "Shape | None"

    def member(self, name: str) -> Member | None:
        """Return a named member."""
        place = bisect_left(self.members, name, key=lambda member: member.name)
        found = self.members[place] if place < len(self.members) else None
        return found if found is not None and found.name == name else None


@dataclass(frozen=True, slots=True)
class Array:
    """An array; `items` is the shape of elements behind the first ones, None if the schema does not say."""

    first: tuple["Shape", ...]
    items: "Shape | None"
    at_least: int


@dataclass(frozen=True, slots=True)
class Union:
    """One of several shapes, none of which is a union; an empty one holds nothing."""

    alternatives: tuple["Shape", ...]


Shape = Unknown | Scalar | Constants | Object | Array | Union
UNKNOWN: Final = Unknown()


def alternatives(shape: Shape) -> tuple[Shape, ...]:
    """Return the shapes a value may have."""
    return shape.alternatives if isinstance(shape, Union) else (shape,)


def is_nullable(shape: Shape) -> bool:
    """Tell whether null is allowed by name; an unknown shape does not name it."""
    return any(
        each == Scalar("null") or (isinstance(each, Constants) and each.has_null) for each in alternatives(shape)
    )


class ShapeReader:
    """Reads the schemas of one definition and counts what it visits."""

    def __init__(self) -> None:
        self._left = MAX_ALL_NODES

    def read(self, schema: Any, name: str) -> Shape:
        """Read one schema.

        Args:
            schema: A JSON Schema that compiles, or None for one that allows everything.
            name: What the schema is, for errors.

        Raises:
            DataflowLimit: It is deeper than 32 levels or has more than 4096 nodes.
        """
        if schema is None:
            return UNKNOWN
        reading = _Reading(schema, name, min(MAX_NODES, self._left))
        shape = reading.shape(schema, 0, ())
        self._left -= reading.visited
        return shape


class _Reading:
    """One schema being read."""

    def __init__(self, root: Any, name: str, nodes: int) -> None:
        self._root = root
        self._name = name
        self._nodes = nodes
        self._anchors = dict(_anchors(root))
        self._laid = 0
        self.visited = 0

    def shape(self, schema: Any, depth: int, inside: tuple[int, ...]) -> Shape:
        """Read a subschema; `inside` are the references that are being followed."""
        self._visit()
        if depth > MAX_DEPTH or len(inside) > 2 * MAX_DEPTH:
            raise DataflowLimit(f"{self._name} exceeds the depth limit of {MAX_DEPTH}")
        if schema is False:
            return Union(())
        if not isinstance(schema, Mapping):
            return UNKNOWN
        if isinstance(schema.get("$ref"), str):
            return self._referred(schema, depth, inside)
        if parts := _list(schema.get("allOf")):
            return self.shape(self._overlaid([_without(schema, "allOf"), *parts], inside), depth, inside)
        for word in ("anyOf", "oneOf"):
            if options := _list(schema.get(word)):
                rest = _without(schema, word)
                overlaid = (self._overlaid([rest, option], inside) for option in options)
                return _union(self.shape(option, depth + 1, inside) for option in overlaid)
        return self._plain(schema, depth, inside)

    def _visit(self) -> None:
        self.visited += 1
        self._check()

    def _lay(self) -> None:
        self._laid += 1
        self._check()

    def _check(self) -> None:
        if self.visited > self._nodes or self._laid > MAX_LAID:
            raise DataflowLimit(f"{self._name} exceeds the node limit of {self._nodes}")

    def _referred(self, schema: Mapping[str, Any], depth: int, inside: tuple[int, ...]) -> Shape:
        target = self._target(schema["$ref"])
        if id(target) in inside:
            return UNKNOWN
        within = (*inside, id(target))
        return self.shape(self._overlaid([_without(schema, "$ref"), target], within), depth, within)

    def _overlaid(self, schemas: list[Any], inside: tuple[int, ...]) -> Any:
        """Lay schemas that must all hold over each other; of two types or constants the later one counts."""
        whole: dict[str, Any] = {}
        for schema in schemas:
            followed = self._followed(schema, inside)
            if followed is False:
                return False
            if isinstance(followed, Mapping):
                self._lay()
                whole = _both(whole, followed)
        return whole

    def _followed(self, schema: Any, inside: tuple[int, ...]) -> Any:
        """Follow a reference that has no neighbours, so that what it leads to can be laid over others."""
        for _ in range(MAX_DEPTH):
            if not (isinstance(schema, Mapping) and isinstance(schema.get("$ref"), str) and len(schema) == 1):
                return schema
            target = self._target(schema["$ref"])
            if id(target) in inside:
                return {}
            schema = target
        return {}

    def _plain(self, schema: Mapping[str, Any], depth: int, inside: tuple[int, ...]) -> Shape:
        if "const" in schema or _list(schema.get("enum")):
            values = [schema["const"]] if "const" in schema else _list(schema["enum"])
            return Constants(tuple(sorted({_text(value) for value in values})))
        written = schema.get("type")
        if isinstance(written, list):
            types = sorted({each for each in written if isinstance(each, str)})
            return _union(self._plain({**schema, "type": each}, depth, inside) for each in types)
        if written == "object" or (written is None and any(word in schema for word in _OBJECT_WORDS)):
            return self._object(schema, depth, inside)
        if written == "array" or (written is None and any(word in schema for word in _ARRAY_WORDS)):
            return self._array(schema, depth, inside)
        return Scalar(written) if written in _TYPES else UNKNOWN

    def _object(self, schema: Mapping[str, Any], depth: int, inside: tuple[int, ...]) -> Shape:
        required = {name for name in _list(schema.get("required")) if isinstance(name, str)}
        properties = schema.get("properties")
        members = tuple(
            Member(name, self.shape(inner, depth + 1, inside), name in required)
            for name, inner in (sorted(properties.items()) if isinstance(properties, Mapping) else ())
        )
        rest = schema.get("additionalProperties", schema.get("unevaluatedProperties"))
        if rest is None or schema.get("patternProperties"):
            return Object(members, UNKNOWN)
        return Object(members, None if rest is False else self.shape(rest, depth + 1, inside))

    def _array(self, schema: Mapping[str, Any], depth: int, inside: tuple[int, ...]) -> Shape:
        first = _list(schema.get("prefixItems"))
        rest = schema.get("items")
        if isinstance(rest, list):  # drafts before 2020-12
            first, rest = rest, schema.get("additionalItems")
        at_least = schema.get("minItems", 0)
        return Array(
            tuple(self.shape(each, depth + 1, inside) for each in first),
            None if rest is None or rest is False else self.shape(rest, depth + 1, inside),
            int(at_least) if isinstance(at_least, int | float) else 0,
        )

    def _target(self, reference: str) -> Any:
        if reference in self._anchors:
            return self._anchors[reference]
        base, _, fragment = reference.partition("#")
        node = self._anchors.get(base, self._root)
        for part in fragment.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            else:
                node = node.get(key) if isinstance(node, Mapping) else None
        return node


def _list(value: Any) -> list[Any]:
    """Return what should be a list; a reference may lead to parts of a schema that nobody has checked."""
    return value if isinstance(value, list) else []


def _without(schema: Mapping[str, Any], word: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != word}


def _both(left: dict[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    whole = {**left, **right}
    if isinstance(left.get("properties"), Mapping) and isinstance(right.get("properties"), Mapping):
        whole["properties"] = {**left["properties"], **right["properties"]}
    for word in ("required", "allOf"):
        if word in left and word in right:
            whole[word] = [*_list(left[word]), *_list(right[word])]
    if left.get("additionalProperties") is False:
        whole["additionalProperties"] = False
    return whole


def _union(shapes: Iterable[Shape]) -> Shape:
    flat = tuple(dict.fromkeys(each for shape in shapes for each in alternatives(shape)))
    if UNKNOWN in flat and len(flat) > 1 and not any(is_nullable(each) for each in flat):
        return UNKNOWN
    return flat[0] if len(flat) == 1 else Union(flat)


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _anchors(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield what references can name beside pointers."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            if isinstance(node.get("$id"), str):
                yield node["$id"], node
            if isinstance(node.get("$anchor"), str):
                yield f"#{node['$anchor']}", node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
