"""Request bodies: read under a limit, decoded under the rules of what can be stored, checked for their shape.

What is refused here never reaches a handler. Most refusals have a `text/plain` body, as clients of the wire format
expect (contract, api §2).
"""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from orchestrator.errors import InvalidArgument, PayloadTooLarge
from sequences.json_values import is_deeper

MAX_DEPTH = 64
"""Containers inside each other, as in everything the engine stores."""
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
"""Signed or unsigned 64 bit: what orjson reads and writes without loss."""
DRAINED_BYTES = 64 * 1024 * 1024
"""How much of a too large body is still read, so that ordinary clients get to see the answer."""

_JSON_TYPE = re.compile(r"application/(?:[\w.!#$&^-]+\+)?json", re.ASCII | re.IGNORECASE)
_LONG_NUMBER = re.compile(rb"\d{19}")

Shape = TypeVar("Shape", bound=BaseModel)


class Rejection(Exception):
    """A request refused before its handler runs; answered with the text as `text/plain`, or with nothing."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class RawBody:
    """The bytes of a request's body and what the client says they are."""

    content: bytes
    content_type: str

    def read(self, shape: type[Shape]) -> Shape:
        """Decode the body and check its shape; raises `Rejection` or a `RequestError`."""
        return shaped(self.json(), shape)

    def json(self, *, max_depth: int | None = MAX_DEPTH) -> Any:
        """Decode the body.

        Args:
            max_depth: Containers inside each other; None leaves the check to whoever reads the value.
        """
        if _JSON_TYPE.fullmatch(self.content_type.partition(";")[0].strip()) is None:
            raise Rejection(415, "Expected request with `Content-Type: application/json`")
        return decode(self.content, max_depth=max_depth)

    def json_or_none(self) -> Any:
        """Decode the body; None if there is none, whatever its type is said to be."""
        return self.json() if self.content.strip() else None


async def read_body(request: Request) -> RawBody:
    """Read the whole body; PayloadTooLarge if it is longer than the setting `max_body_bytes`."""
    return await read_limited(request, request.app.state.services.settings.max_body_bytes)


async def read_limited(request: Request, limit: int) -> RawBody:
    """Read the whole body, counting while it streams in.

    Raises:
        PayloadTooLarge: It is longer than so many bytes.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        else:
            parts.clear()
        if size > limit + DRAINED_BYTES:
            break
    if size > limit:
        raise PayloadTooLarge(f"the body is larger than {limit} bytes")
    return RawBody(b"".join(parts), request.headers.get("content-type", ""))


Body = Annotated[RawBody, Depends(read_body)]


def decode(content: bytes, *, max_depth: int | None = MAX_DEPTH) -> Any:
    """Decode JSON that can be stored.

    Raises:
        Rejection: It is not well-formed; NaN, infinities and lone surrogates are not.
        InvalidArgument: It is well-formed and holds what no store keeps: NUL, integers beyond 64 bit, deep nesting.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Rejection(400, f"Failed to parse the request body as JSON: {error}") from error
    if max_depth is not None and is_deeper(value, max_depth):
        raise InvalidArgument(f"the body is nested deeper than {max_depth} levels")
    if _LONG_NUMBER.search(content):
        _check_integers(content)
    if b"\\u0000" in content and _has_nul(value):
        raise InvalidArgument("text must not contain \\u0000")
    return value


def shaped(value: Any, shape: type[Shape]) -> Shape:
    """Check the shape of decoded JSON; raises `Rejection` (422) naming the first member that does not fit."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        reason = f"missing field `{first['loc'][-1]}`" if first["type"] == "missing" else first["msg"]
        where = f"{path}: " if path else ""
        raise Rejection(422, f"Failed to deserialize the JSON body: {where}{reason}") from error


def _check_integers(content: bytes) -> None:
    """Refuse integers that orjson would silently read as floats. Run only when a number that long is in the text."""
    try:
        json.loads(content, parse_int=_integer)
    except RecursionError as error:
        raise InvalidArgument("the body is nested too deeply") from error


def _integer(digits: str) -> int:
    if len(digits) > 20 or not MIN_INTEGER <= (number := int(digits)) <= MAX_INTEGER:
        raise InvalidArgument("an integer is outside of 64 bit")
    return number


def _has_nul(value: Any) -> bool:
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, str):
            if "\0" in current:
                return True
        elif isinstance(current, dict):
            waiting.extend(current)
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)
    return False
