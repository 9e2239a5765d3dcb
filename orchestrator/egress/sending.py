"""Sends requests, follows redirects, and says in our words what went wrong."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Final

import certifi
import httpcore
import httpx

from orchestrator.egress.addresses import CheckedBackend, Resolve, parse_url, resolve_by_system, without_credentials
from orchestrator.egress.errors import BlockedError, RedirectRejectedError, UnreachableError, UntrustedError
from orchestrator.egress.inflation import decoded
from orchestrator.egress.messages import (
    OutboundRequest,
    OutboundResponse,
    OutboundStream,
    headers_of,
    redirected,
    sendable,
    wire_request,
)
from orchestrator.step_errors import PermanentError

MAX_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
MAX_BODY_BYTES: Final = 10 * 1024 * 1024
"""10 MiB after decompression."""


class Egress:
    """Sends requests to public addresses.

    Args:
        allow_internal: Lets requests reach any address; for tests and intranets only.
        resolve: The resolver.
        tls: What certificates are checked against; the public authorities if None.
    """

    def __init__(
        self,
        *,
        allow_internal: bool = False,
        resolve: Resolve = resolve_by_system,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._backend = CheckedBackend(resolve, allow_internal=allow_internal)
        self._tls = tls

    async def request(
        self, request: OutboundRequest, *, timeout: timedelta, max_body_bytes: int = MAX_BODY_BYTES
    ) -> OutboundResponse:
        """Send a request and read the whole answer, whatever its status.

        Args:
            request: What to send.
            timeout: For everything together: name, connections, redirects, body.
            max_body_bytes: Largest body after decompression.

        Raises:
            PermanentError: The target is blocked, the request is no HTTP, the body is too large, too many redirects.
            UnreachableError: No connection, or no HTTP came back.
            TimeoutError: Not done in time.
        """
        async with asyncio.timeout(timeout.total_seconds()), self.stream(request, max_body_bytes) as answer:
            body = b"".join([chunk async for chunk in answer.chunks])
        return OutboundResponse(status=answer.status, headers=answer.headers, body=body, url=answer.url)

    @asynccontextmanager
    async def stream(
        self, request: OutboundRequest, max_body_bytes: int = MAX_BODY_BYTES
    ) -> AsyncIterator[OutboundStream]:
        """Send a request and hand out the answer while it comes in; limiting the time is up to the caller."""
        with _translated_errors():
            async with httpcore.AsyncConnectionPool(
                ssl_context=self._tls or _public_tls(), network_backend=self._backend, max_connections=1
            ) as pool:
                response, url = await _follow(pool, request)
                headers = headers_of(response)
                try:
                    yield OutboundStream(
                        status=response.status, headers=headers, url=url, chunks=decoded(response, max_body_bytes)
                    )
                finally:
                    await response.aclose()


async def _follow(pool: httpcore.AsyncConnectionPool, request: OutboundRequest) -> tuple[httpcore.Response, str]:
    """Send the request and follow redirects; return the first answer that is none, and its URL."""
    url = parse_url(request.url)
    headers = sendable(request.headers)
    sent = replace(request, headers=headers)
    for hop in range(MAX_REDIRECTS + 1):
        try:
            response = await pool.handle_async_request(wire_request(sent, url))
        except BlockedError as blocked:
            if hop == 0:
                raise
            raise RedirectRejectedError(blocked.message) from blocked
        location = headers_of(response).get("location")
        if response.status not in _REDIRECTS or not location or not request.follows:
            return response, without_credentials(str(url))
        await response.aclose()
        target = parse_url(str(_joined(url, location)))
        sent = redirected(sent, response.status, is_same_origin=_origin(url) == _origin(target))
        url = target
    raise RedirectRejectedError(f"more than {MAX_REDIRECTS} redirects")


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError) as exc:
        raise PermanentError(f"invalid url in a redirect: {exc}") from exc


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme]


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as exc:
        raise TimeoutError(f"{type(exc).__name__}: {exc}") from exc
    except httpcore.UnsupportedProtocol as exc:
        raise BlockedError from exc
    except httpcore.LocalProtocolError as exc:
        raise PermanentError(f"invalid request: {exc}") from exc
    except (httpcore.NetworkError, httpcore.ProtocolError) as exc:
        if isinstance(exc.__cause__, ssl.SSLError):
            raise UntrustedError(f"{type(exc).__name__}: {exc}") from exc
        raise UnreachableError(f"{type(exc).__name__}: {exc}") from exc


@cache
def _public_tls() -> ssl.SSLContext:
    """Load the public authorities once; it takes 20 ms."""
    return ssl.create_default_context(cafile=certifi.where())
