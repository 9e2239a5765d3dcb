"""Names with a slash in an address: `%2F` is part of a name and separates nothing (RFC 3986, §2.2).

The server hands over paths with all escapes taken out, where the two slashes look alike. So an escaped one goes through
the table of endpoints as NUL, which no name may hold, and becomes a slash again when it has found the endpoint.
"""

from typing import Final
from urllib.parse import unquote

from starlette.types import Scope

_STAND_IN: Final = "\0"


def path_of(scope: Scope) -> str:
    r"""Give the path of a request as routes match it; one that holds NUL itself must have been refused.

    >>> path_of({"path": "/pools/a/b", "raw_path": b"/pools/a%2Fb"})
    '/pools/a\x00b'
    >>> path_of({"path": "/pools/a b", "raw_path": b"/pools/a%20b"})
    '/pools/a b'
    """
    path: str = scope["path"]
    written: bytes = scope.get("raw_path") or b""
    if b"%2f" not in written.lower():
        return path
    parts = written.partition(b"?")[0].decode("ascii", "replace").split("/")
    return "/".join(unquote(part).replace("/", _STAND_IN) for part in parts)


def as_written(value: str) -> str:
    r"""Give what a parameter of a path was before its slashes were escaped.

    >>> as_written("a\0b")
    'a/b'
    """
    return value.replace(_STAND_IN, "/")
