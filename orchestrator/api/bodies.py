"""Request bodies: read under a limit, decoded under the rules of what can be stored, checked for their shape.

What is refused here never reaches a handler. Most refusals have a `text/plain` body, as clients of the wire format
expect (contract, api §2).
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import anyio.to_thread
import orjson
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from orchestrator.errors import PayloadTooLarge
from orchestrator.storable import MAX_DEPTH, check_depth, check_storable

READ_AT_ONCE = 32 * 1024
"""Bytes of a body that are decoded on the event loop: a larger one would hold up other requests."""
DRAINED_BYTES = 64 * 1024 * 1024
"""How much of a too large body is still read, so that ordinary clients get to see the answer."""

_JSON_TYPE = re.compile(r"application/(?:[\w.!#$&^-]+\+)?json", re.ASCII | re.IGNORECASE)

Shape = TypeVar("Shape", bound=BaseModel)


class Rejection(Exception):
    """A request refused before its handler runs; answered with the text as `text/plain`, or with nothing."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class EndlessBody(PayloadTooLarge):
    """A body of which the rest is not read: its connection ends with the answer."""


@dataclass(frozen=True, slots=True)
class RawBody:
    """The bytes of a request's body and what the client says they are."""

    content: bytes
    content_type: str

    def read(self, shape: type[Shape]) -> Shape:
        """Decode the body and check its shape; raises `Rejection` or a `RequestError`.

        A wrong shape is told first: a number too large for its member is of a wrong type (422), one in a member of any
        type is not stored (400).
        """
        self._check_type()
        value = loaded(self.content)
        check_depth(value)
        read = shaped(value, shape)
        check_storable(value, self.content, max_depth=None)
        return read

    async def read_async(self, shape: type[Shape]) -> Shape:
        """Decode the body as `read` does: a large one in a thread, so that it holds up no other request."""
        if len(self.content) > READ_AT_ONCE:
            return await anyio.to_thread.run_sync(self.read, shape)
        return self.read(shape)

    def json(self, *, max_depth: int | None = MAX_DEPTH) -> Any:
        """Decode the body.

        Args:
            max_depth: Containers inside each other; None leaves the check to whoever reads the value.
        """
        self._check_type()
        return decode(self.content, max_depth=max_depth)

    def _check_type(self) -> None:
        if _JSON_TYPE.fullmatch(self.content_type.partition(";")[0].strip()) is None:
            raise Rejection(415, "Expected request with `Content-Type: application/json`")

    def json_or_none(self) -> Any:
        """Decode the body; None if there is none, whatever its type is said to be."""
        return self.json() if self.content.strip() else None


async def read_body(request: Request) -> RawBody:
    """Read the whole body; PayloadTooLarge if it is longer than the setting `max_body_bytes`."""
    return await read_limited(request, request.app.state.services.settings.max_body_bytes)


async def read_limited(request: Request, limit: int) -> RawBody:
    """Read the whole body, counting while it streams in, for as long as the setting `body_timeout` says.

    Raises:
        PayloadTooLarge: It is longer than so many bytes.
        Rejection: It has not ended in time.
    """
    try:
        async with asyncio.timeout(request.app.state.services.settings.body_timeout.total_seconds()):
            content = await _read(request, limit)
    except TimeoutError as error:
        raise Rejection(408, "The request body did not arrive in time") from error
    return RawBody(content, request.headers.get("content-type", ""))


async def _read(request: Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        else:
            parts.clear()
        if size > limit + DRAINED_BYTES:
            raise EndlessBody(f"the body is larger than {limit} bytes")
    if size > limit:
        raise PayloadTooLarge(f"the body is larger than {limit} bytes")
    return b"".join(parts)


Body = Annotated[RawBody, Depends(read_body)]


def decode(content: bytes, *, max_depth: int | None = MAX_DEPTH) -> Any:
    """Decode JSON that can be stored.

    Raises:
        Rejection: It is not well-formed; NaN, infinities and lone surrogates are not.
        InvalidArgument: It is well-formed and holds what no store keeps: NUL, integers beyond 64 bit, deep nesting.
    """
    value = loaded(content)
    check_storable(value, content, max_depth=max_depth)
    return value


def loaded(content: bytes) -> Any:
    """Decode JSON whatever it holds; `Rejection` if it is not well-formed."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Rejection(400, f"Failed to parse the request body as JSON: {error}") from error


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
