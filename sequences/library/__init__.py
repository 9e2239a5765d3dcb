"""Ready definitions, one JSON document each, loaded by name, each with an input to start it with."""

import json
from importlib import resources
from typing import Any

__all__ = ["example_input", "load", "names"]

_SUFFIX = ".json"
_INPUTS = "inputs"


def names() -> tuple[str, ...]:
    """Return the names of all documents, sorted."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


def load(name: str) -> dict[str, Any]:
    """Return a new copy of a document, as it can be posted.

    Raises:
        LookupError: There is no document of that name; the message lists those there are.
    """
    return _read(f"{_checked(name)}{_SUFFIX}")


def example_input(name: str) -> dict[str, Any]:
    """Return a new copy of a `context.data` that an instance of the document can be started with.

    Raises:
        LookupError: There is no document of that name.
    """
    return _read(_INPUTS, f"{_checked(name)}{_SUFFIX}")


def _checked(name: str) -> str:
    known = names()
    if name not in known:
        raise LookupError(f"no library document {name!r}; there are: {', '.join(known)}")
    return name


def _read(*path: str) -> dict[str, Any]:
    text = resources.files(__name__).joinpath(*path).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
