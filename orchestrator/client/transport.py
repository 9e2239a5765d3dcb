"""How requests travel: which may be repeated, when, and what each refusal means. No I/O; both clients use it.

A request that changes something and carries no key is repeated only if it cannot have arrived: the connection was not
made. One that may be repeated is, after a lost connection or a 503, until its tries are used up.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from orchestrator.errors import (
    AlreadyExists,
    ConfigurationError,
    Conflict,
    Forbidden,
    InvalidArgument,
    NotAuthorized,
    NotFound,
    OrchestratorError,
    PayloadTooLarge,
    RequestError,
    ServerFault,
    ServerUnavailable,
    Unprocessable,
)

Result = TypeVar("Result")

PREFIX = "/api/v1"
CONNECT_SECONDS = 5.0
BUSY = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may succeed: of ours, and of balancers in front of us."""
_NEVER_ARRIVED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_BY_PREFIX: Mapping[str, type[RequestError]] = {
    "invalid argument": InvalidArgument,
    "forbidden": Forbidden,
    "not found": NotFound,
    "already exists": AlreadyExists,
    "conflict": Conflict,
    "payload too large": PayloadTooLarge,
    "unprocessable entity": Unprocessable,
}
_BY_STATUS: Mapping[int, type[RequestError]] = {
    400: InvalidArgument,
    403: Forbidden,
    404: NotFound,
    405: InvalidArgument,
    409: Conflict,
    413: PayloadTooLarge,
    415: InvalidArgument,
    422: Unprocessable,
}
_EMPTY_BODIES: Mapping[int, str] = {
    400: "the server wants to know the tenant; pass one",
    403: "the key does not allow this, or belongs to another tenant",
    404: "the server does not know this address; is it an orchestrator of this version?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Result]):
    """One request and what its answer means.

    Attributes:
        path: Under the prefix of the API.
        query: Parameters; those that are None are left out.
        body: Anything JSON can say; None for no body.
        headers: Beside those that every request of the client has.
        read: Makes the result of status and decoded body.
        may_repeat: Whether a second one, after a first one that was carried out, does no harm.
    """

    method: str
    path: str
    read: Callable[[int, Any], Result]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str | bytes] = field(default_factory=dict)
    may_repeat: bool = False

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of `httpx.Client.request`.

        Raises:
            InvalidArgument: The body holds what JSON cannot say.
        """
        query = {name: value for name, value in self.query.items() if value is not None}
        headers: dict[str, str | bytes] = dict(self.headers)
        arguments: dict[str, Any] = {"method": self.method, "url": PREFIX + self.path, "params": query}
        arguments["headers"] = headers
        if self.body is not None:
            headers["content-type"] = "application/json"
            arguments["content"] = _encoded(self.body)
        return arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and after which waits, in seconds, a request is tried.

    Full jitter, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: clients that failed together must not
    come back together.
    """

    tries: int = 6
    first: float = 0.1
    longest: float = 2.0

    def delay(self, failures: int) -> float:
        """Choose the wait after so many failures, at least one.

        >>> all(0 <= Patience().delay(failures) <= 2.0 for failures in (1, 5, 5000))
        True
        """
        return random.uniform(0, min(self.longest, self.first * 2.0 ** min(failures - 1, 30)))  # noqa: S311 - jitter


class Tries(Generic[Result]):
    """The tries of one call: fed with what came of each, it says how long to wait for the next, or raises."""

    def __init__(self, call: Call[Result], patience: Patience, url: str) -> None:
        self._call = call
        self._patience = patience
        self._url = url
        self._failures = 0
        self._may_be_done = False

    def after_error(self, error: httpx.HTTPError) -> float:
        """Say how long to wait after a request that got no answer; ServerUnavailable if there is no next one."""
        has_arrived = not isinstance(error, _NEVER_ARRIVED)
        self._may_be_done |= has_arrived
        reason = str(error) or type(error).__name__
        return self._next(can_repeat=self._call.may_repeat or not has_arrived, reason=reason, cause=error)

    def after_answer(self, response: httpx.Response) -> float | None:
        """Say how long to wait after an answer; None if it is the final one. ServerUnavailable as above."""
        if response.status_code not in BUSY:
            return None
        self._may_be_done |= response.status_code != 429
        can_repeat = self._call.may_repeat or response.status_code == 429
        return self._next(can_repeat=can_repeat, reason=_message(response) or f"status {response.status_code}")

    def _next(self, *, can_repeat: bool, reason: str, cause: Exception | None = None) -> float:
        self._failures += 1
        if can_repeat and self._failures < self._patience.tries:
            return self._patience.delay(self._failures)
        unsure = self._may_be_done and self._call.method != "GET"
        note = "; it may have been carried out all the same" if unsure else ""
        tried = f" after {self._failures} tries" if self._failures > 1 else ""
        message = f"{self._url} did not answer {self._call.method} {self._call.path}{tried}: {reason}{note}"
        raise ServerUnavailable(message, may_be_done=unsure) from cause


def http_options(url: str, api_key: str | None, tenant: str | None, timeout: float) -> dict[str, Any]:
    """Give the arguments of `httpx.Client` and `httpx.AsyncClient`.

    Raises:
        ConfigurationError: The URL is none.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"the server's URL is {url!r}; it must begin with http:// or https://")
    headers = {"x-api-key": api_key, "x-tenant-id": tenant}
    return {
        "base_url": url,
        "headers": {name: value for name, value in headers.items() if value},
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
        "verify": url.startswith("https://"),  # certificates take 30 ms to read, more than most requests
    }


def result_of(call: Call[Result], response: httpx.Response) -> Result:
    """Read the final answer of a call, or raise what it means.

    Raises:
        RequestError: The class that fits the refusal.
        NotAuthorized: The server does not know the key.
        ServerFault: The server has failed, or its answer is not what this API answers.
    """
    if not response.is_success:
        raise error_of(response)
    try:
        return call.read(response.status_code, orjson.loads(response.content) if response.content else None)
    except (ValidationError, orjson.JSONDecodeError, LookupError, TypeError) as error:
        where = f"{call.method} {response.url}"
        raise ServerFault(f"{where} was not answered as an orchestrator of this version does: {error}") from error


def error_of(response: httpx.Response) -> OrchestratorError:
    """Translate a refusal into the error the engine itself would have raised."""
    message, status = _message(response), response.status_code
    if status == 401 and message == "unauthorized":
        return NotAuthorized("the thing has another secret; pass the right one")
    if status == 401:
        return NotAuthorized("the server does not know the key; pass the right one")
    prefix, separator, rest = message.partition(": ")
    if separator and prefix in _BY_PREFIX:
        return _BY_PREFIX[prefix](rest)
    if status in _BY_STATUS:
        return _BY_STATUS[status](message or _EMPTY_BODIES.get(status, f"status {status}"))
    request_id = response.headers.get("x-request-id", "unknown")
    said = message or f"status {status}"
    return ServerFault(f"{response.url} has failed: {said} (request {request_id} in its log)")


def unreadable(error: Exception) -> NoReturn:
    """Refuse a body that JSON cannot say."""
    raise InvalidArgument(f"this cannot be written as JSON: {error}") from error


def _message(response: httpx.Response) -> str:
    """Take the text out of a refusal: `{"error": …}`, or plain text."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return response.text.strip()[:500]
    if isinstance(body, dict) and isinstance(body.get("error"), str):
        return str(body["error"])
    return response.text.strip()[:500]


def _encoded(body: Any) -> bytes:
    try:
        return orjson.dumps(body, default=_jsonable)
    except orjson.JSONEncodeError as error:
        unreadable(error)


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__}: {value!r}"[:200])
