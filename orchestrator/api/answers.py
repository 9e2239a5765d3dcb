"""Answers: JSON as the wire format writes it, and what each kind of refusal looks like (contract, api §2)."""

from functools import partial
from typing import Any, Final

import orjson
import psycopg2
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from orchestrator.api.bodies import EndlessBody, Rejection
from orchestrator.api.methods import Methods
from orchestrator.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    InvalidArgument,
    NotFound,
    PayloadTooLarge,
    RateLimitExceeded,
    RequestError,
    StoreUnavailable,
    Unauthorized,
    Unprocessable,
    UpstreamFailed,
)
from orchestrator.store.session import is_passing, sqlstate
from sequences.json_values import json_bytes

_CLASSES: Final[dict[type[RequestError], tuple[int, str]]] = {
    InvalidArgument: (400, "invalid argument"),
    Unauthorized: (401, "unauthorized"),
    Forbidden: (403, "forbidden"),
    NotFound: (404, "not found"),
    AlreadyExists: (409, "already exists"),
    Conflict: (409, "conflict"),
    PayloadTooLarge: (413, "payload too large"),
    Unprocessable: (422, "unprocessable entity"),
    RateLimitExceeded: (429, "rate limit exceeded"),
    UpstreamFailed: (502, "bad gateway"),
}
_WRONG_METHOD: Final = 405
_TOO_SLOW: Final = 408
_UNSTORABLE: Final = ("22", "54")
"""Classes of SQLSTATE for values PostgreSQL refuses: out of range, too long for an index."""


class Json(Response):
    """A JSON answer; times in UTC with `Z`."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Write the content as JSON."""
        return json_bytes(content, options=orjson.OPT_UTC_Z)


def add_error_answers(app: FastAPI, methods: Methods) -> None:
    """Let an app answer every refusal as the contract says. What is not listed here is a 500 of the edge."""
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(StoreUnavailable, _unavailable)
    app.add_exception_handler(psycopg2.Error, _store_refused)
    app.add_exception_handler(Rejection, _rejected)
    app.add_exception_handler(RequestValidationError, _address_rejected)
    app.add_exception_handler(HTTPException, partial(_not_routed, methods))


def error(status: int, text: str) -> Json:
    """Give the one error shape that handled refusals have."""
    return Json({"error": text}, status_code=status)


async def _refused(_request: Request, refusal: Exception) -> Response:
    status, prefix = next(answer for kind, answer in _CLASSES.items() if isinstance(refusal, kind))
    answer = error(status, f"{prefix}: {refusal}" if str(refusal) else prefix)
    if isinstance(refusal, EndlessBody):
        answer.headers["connection"] = "close"
    return answer


async def _unavailable(_request: Request, _error: Exception) -> Response:
    return error(503, "unavailable: the store did not answer, try again")


async def _store_refused(request: Request, refusal: Exception) -> Response:
    """Answer what PostgreSQL refused; anything but a busy row or a value of the client is a bug, and the edge's."""
    state = sqlstate(refusal) or ""
    if is_passing(refusal):
        return await _unavailable(request, refusal)
    if state.startswith(_UNSTORABLE):
        return error(400, "invalid argument: a value is out of range or too long to be stored")
    raise refusal


async def _rejected(_request: Request, rejection: Exception) -> Response:
    assert isinstance(rejection, Rejection)  # noqa: S101 - registered for this class only
    headers = {"connection": "close"} if rejection.status == _TOO_SLOW else None
    return PlainTextResponse(rejection.text, rejection.status, headers)


async def _address_rejected(_request: Request, rejection: Exception) -> Response:
    """Answer a malformed path or query; bodies are read elsewhere."""
    assert isinstance(rejection, RequestValidationError)  # noqa: S101 - registered for this class only
    first = rejection.errors()[0]
    name = first["loc"][-1]
    reason = f"missing field `{name}`" if first["type"] == "missing" else f"`{name}`: {first['msg']}"
    return PlainTextResponse(f"Failed to deserialize the {first['loc'][0]}: {reason}", 400)


async def _not_routed(methods: Methods, request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, HTTPException)  # noqa: S101 - registered for this class only
    headers = {"allow": methods.allowed(request.url.path)} if refusal.status_code == _WRONG_METHOD else refusal.headers
    return Response(status_code=refusal.status_code, headers=headers)
