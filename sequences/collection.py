"""The `collection` of a for_each: a template or a bare path (§3.5)."""

from typing import Any

from sequences.scope import MISSING, Scope, follow, member, resolve
from sequences.template_syntax import read_path
from sequences.templates import render

_BARE_ROOTS = frozenset({"data", "context", "outputs", "steps", "config", "input"})


def is_template(collection: str) -> bool:
    """Tell whether a collection is a template rather than a bare path."""
    return "{{" in collection


def resolve_collection(collection: str, scope: Scope) -> list[Any]:
    """Return the items to go through; a missing value, null and anything that is no array have none.

    >>> resolve_collection("order.lines", Scope(data={"order": {"lines": [1, 2]}}))
    [1, 2]

    Raises:
        TemplateError: The template in it cannot be resolved.
    """
    value = render(collection, scope) if is_template(collection) else _bare(collection, scope)
    return value if isinstance(value, list) else []


def _bare(collection: str, scope: Scope) -> Any:
    path = read_path(collection.strip())
    if path.is_indexed:
        return None
    in_data = scope.bindings.get(path.root, MISSING)
    if in_data is MISSING:
        in_data = member(scope.data, path.root)
    if in_data is MISSING and path.root in _BARE_ROOTS:
        return resolve(scope, path.root, path.keys)
    return None if in_data is MISSING else follow(in_data, path.keys)
