"""The built-in handler http_request. Source: sequence language contract §11."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import orjson

from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome
from orchestrator.egress import Egress, OutboundRequest, OutboundResponse, parse_url, without_credentials
from workers.context import StepContext
from workers.failures import failed, outcome_of_exception
from workers.handlers.params import is_text, members, missing, wrong_input

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"})
DEFAULT_TIMEOUT_MS: Final = 10_000
MAX_TIMEOUT_MS: Final = 24 * 3600 * 1000
"""One day: longer waits belong into the flow, not into a connection."""


def http_request(egress: Egress) -> Callable[[StepContext, Any], Awaitable[Outcome]]:
    """Return the handler that sends one HTTP request through `egress`."""

    async def http_request(ctx: StepContext, params: Any) -> Outcome:
        given = members(params)
        timeout = timeout_of(given.get("timeout_ms"), DEFAULT_TIMEOUT_MS)
        if isinstance(timeout, Failed):
            return timeout
        request = _request(ctx, given)
        if isinstance(request, Failed):
            return request
        if ctx.dry_run:
            return _dry_run(request)
        return await _send(egress, request, timeout)

    return http_request


def timeout_of(value: Any, default_ms: int) -> timedelta | Failed:
    """Read `timeout_ms`; absent or null is the default."""
    timeout_ms = default_ms if value is None else value
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int | float) or not 0 < timeout_ms <= MAX_TIMEOUT_MS:
        return wrong_input(f"timeout_ms must be a number above 0 and at most {MAX_TIMEOUT_MS}")
    return timedelta(milliseconds=timeout_ms)


def headers_of(value: Any) -> dict[str, str] | Failed:
    """Read `headers`: values that are no strings become their JSON text, null ones are left out."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        return wrong_input("headers must be an object")
    return {
        name: item if isinstance(item, str) else orjson.dumps(item).decode()
        for name, item in value.items()
        if item is not None
    }


def has_header(headers: Mapping[str, str], name: str) -> bool:
    """Return whether a header is there, in whatever case."""
    return any(known.lower() == name for known in headers)


def _request(ctx: StepContext, given: dict[str, Any]) -> OutboundRequest | Failed:
    url, method = given.get("url"), given.get("method", "GET")
    if not is_text(url):
        return missing("url")
    if not isinstance(method, str) or method.upper() not in METHODS:
        return wrong_input(f"unsupported method {method!r}; expected one of {', '.join(sorted(METHODS))}")
    headers = headers_of(given.get("headers"))
    if isinstance(headers, Failed):
        return headers
    try:
        parse_url(url)
    except Exception as exc:  # noqa: BLE001  blocked or invalid, each with its own message
        return outcome_of_exception(exc)
    body = _body(given.get("body"))
    if not has_header(headers, "idempotency-key"):
        headers["Idempotency-Key"] = ctx.idempotency_key
    if body is not None and not has_header(headers, "content-type"):
        headers["Content-Type"] = "application/json"
    return OutboundRequest(method=method.upper(), url=url, headers=headers, body=body)


def _body(value: Any) -> bytes | None:
    if value is None:
        return None
    return value.encode(errors="replace") if isinstance(value, str) else orjson.dumps(value)


def _dry_run(request: OutboundRequest) -> Outcome:
    would = f"{request.method} {without_credentials(request.url)}"
    return Completed(output={"dry_run": True, "handler": "http_request", "would": would, "status": 200, "body": ""})


async def _send(egress: Egress, request: OutboundRequest, timeout: timedelta) -> Outcome:
    url = without_credentials(request.url)
    try:
        response = await egress.request(request, timeout=timeout)
    except TimeoutError:
        text = f"request to {url} timed out after {timeout // timedelta(milliseconds=1)} ms"
        return failed(text, retryable=True, kind=FailureKind.TIMEOUT)
    except ConnectionError as exc:
        return failed(f"request to {url} failed: {exc}", retryable=True, kind=FailureKind.NETWORK)
    except Exception as exc:  # noqa: BLE001  blocked, too large, and whatever else: all are endings of the attempt
        return outcome_of_exception(exc)
    return _outcome(url, response)


def _outcome(url: str, response: OutboundResponse) -> Outcome:
    """Return the answer as output below status 400, as failure from there on; only 5xx is worth another attempt."""
    answer = {"status": response.status, "body": response.text}
    if response.status < 400:
        return Completed(output=answer)
    return failed(f"HTTP {response.status} from {url}", retryable=response.status >= 500, details=answer)
