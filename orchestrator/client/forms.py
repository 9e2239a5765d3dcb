"""The forms of request that most operations have."""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from orchestrator.client.transport import Call

Form = TypeVar("Form", bound=BaseModel)


def part(written: object) -> str:
    """Write a value as one part of a path.

    >>> part("a/b")
    'a%2Fb'
    """
    return quote(str(written), safe="")


def read_one(path: str, shape: type[Form], query: Mapping[str, Any] | None = None) -> Call[Form]:
    """Read one thing."""
    return Call(
        method="GET",
        path=path,
        query=query or {},
        may_repeat=True,
        read=lambda _status, body: shape.model_validate(body),
    )


def read_rows(path: str, shape: type[Form], query: Mapping[str, Any] | None = None) -> Call[tuple[Form, ...]]:
    """Read a list."""
    return Call(
        method="GET",
        path=path,
        query=query or {},
        may_repeat=True,
        read=lambda _status, body: tuple(shape.model_validate(each) for each in body),
    )


def read_whole(method: str, path: str, body: Any = None) -> Call[dict[str, Any]]:
    """Ask for something that is shown as it is, and that changes nothing."""
    return Call(method=method, path=path, body=body, may_repeat=True, read=lambda _status, body: dict(body))


def send(method: str, path: str, shape: type[Form], body: Any, *, may_repeat: bool = False) -> Call[Form]:
    """Change something, and read what came of it."""
    return Call(
        method=method,
        path=path,
        body=body,
        may_repeat=may_repeat,
        read=lambda _status, body: shape.model_validate(body),
    )


def send_blindly(method: str, path: str, body: Any = None, *, may_repeat: bool = False) -> Call[None]:
    """Change something; nothing is answered."""
    return Call(method=method, path=path, body=body, may_repeat=may_repeat, read=lambda _status, _body: None)


def send_counted(method: str, path: str, body: Any = None) -> Call[int]:
    """Change several things, and read how many."""
    return Call(method=method, path=path, body=body, read=lambda _status, body: int(body["count"]))
