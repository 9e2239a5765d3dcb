"""How large a JSON Schema becomes when its references are followed.

A validator follows `$ref` every time it meets one, so 20 definitions that each refer twice to the next cost 2**20
visits per value (45 s were measured). Such a schema is refused before it is used. A reference back into a definition
that is being followed counts once: recursion ends with the value.
"""

from typing import Any, Final

MAX_EXPANDED: Final = 20_000
"""Subschemas after expansion; 20,000 are visited in some 20 ms."""
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")


def is_too_large(schema: dict[str, Any]) -> bool:
    """Tell whether a schema expands to more subschemas than one check may visit."""
    try:
        return _Expansion(schema).size(schema) > MAX_EXPANDED
    except RecursionError:
        return True


class _Expansion:
    """Sizes of the parts of one schema; each is computed once."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema
        self._named = dict(_names(schema))
        self._sizes: dict[int, int] = {}

    def size(self, node: Any) -> int:
        """Return the number of objects a part expands to."""
        if isinstance(node, list):
            return sum(self.size(member) for member in node)
        if not isinstance(node, dict):
            return 0
        if id(node) not in self._sizes:
            self._sizes[id(node)] = 0
            inside = sum(self.size(member) for member in node.values())
            self._sizes[id(node)] = min(1 + inside + self._referred(node), MAX_EXPANDED + 1)
        return self._sizes[id(node)]

    def _referred(self, node: dict[str, Any]) -> int:
        written = (node.get(name) for name in _REFERENCES)
        return sum(self.size(self._target(reference)) for reference in written if isinstance(reference, str))

    def _target(self, reference: str) -> Any:
        if reference in self._named:
            return self._named[reference]
        base, _, fragment = reference.partition("#")
        node = self._named.get(base, self._root)
        for part in fragment.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and key.isdecimal() and len(key) < 6 and int(key) < len(node):
                node = node[int(key)]
            else:
                node = node.get(key) if isinstance(node, dict) else None
        return node


def _names(schema: Any) -> list[tuple[str, Any]]:
    """Return what references can name beside pointers: `$id` as written, anchors with their `#`."""
    found: list[tuple[str, Any]] = []
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            found += [(node["$id"], node)] if isinstance(node.get("$id"), str) else []
            anchors = (node.get("$anchor"), node.get("$dynamicAnchor"))
            found += [(f"#{anchor}", node) for anchor in anchors if isinstance(anchor, str)]
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return found
