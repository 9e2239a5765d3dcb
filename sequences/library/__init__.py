"""Ready definitions, one JSON document each, loaded by name."""

import json
from importlib import resources
from typing import Any

__all__ = ["load", "names"]

_SUFFIX = ".json"


def names() -> tuple[str, ...]:
    """Return the names of all documents, sorted."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


def load(name: str) -> dict[str, Any]:
    """Return a new copy of a document, as it can be posted.

    Raises:
        LookupError: There is no document of that name; the message lists those there are.
    """
    known = names()
    if name not in known:
        raise LookupError(f"no library document {name!r}; there are: {', '.join(known)}")
    document: dict[str, Any] = json.loads((resources.files(__name__) / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))
    return document
