"""The one way out: every request that a sequence can aim at an address of its choice goes through here.

A sequence's author must not reach what only this machine can reach: the metadata service, databases, other tenants'
tools. A check of the URL's text cannot promise that, since names resolve to anything, and to something else a moment
later. So the check sits where the connection is made: the name is resolved once, every address of the answer must be
public, and the socket is opened to one of exactly these addresses, while TLS still verifies the name. Redirects make
new connections and so meet the same check. Source: OWASP, Server-Side Request Forgery Prevention Cheat Sheet.

Nothing comes from the environment: no proxies, no netrc, no certificate overrides.
"""

import asyncio
import re
import socket
import ssl
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import certifi
import httpcore
import httpx

from orchestrator.step_errors import PermanentError

BLOCKED: Final = "blocked: URL targets a private/internal network address"
MAX_REDIRECTS: Final = 10
MAX_BODY_BYTES: Final = 10 * 1024 * 1024
"""10 MiB after decompression."""
USER_AGENT: Final = "orchestrator"

_NOT_PUBLIC_V4: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this host
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's host agent: a public address that means the hypervisor
            "169.254.0.0/16",  # link-local; metadata services
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
"""IANA IPv4 Special-Purpose Address Registry, and two addresses of clouds."""
_UNICAST_V6: Final = ip_network("2000::/3")
"""All public IPv6 there is. Outside of it: loopback, mapped IPv4, NAT64, unique local, link-local, multicast."""
_NOT_PUBLIC_V6: Final = tuple(
    map(
        ip_network,
        (
            "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4 carries an IPv4 address
            "3fff::/20",  # documentation
        ),
    )
)
"""IANA IPv6 Special-Purpose Address Registry, inside of 2000::/3."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CHARSET: Final = re.compile(
    r"utf-?(8|16|32)([lb]e)?|(us-)?ascii|latin-?1|iso-?8859-\d+|(windows-|cp)125\d|koi8-[ru]"
    r"|shift[-_]jis|euc-(jp|kr)|gb(2312|k|18030)|big5",
    re.IGNORECASE,
)
"""Charsets of the web. Python knows more, and some of them (punycode, idna) take quadratic time."""
_OURS: Final = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "accept-encoding",
    }
)
"""Headers that say how a message is framed or coded; an author's version would contradict the bytes sent."""
_CREDENTIAL_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
_BODY_HEADERS: Final = frozenset({"content-type", "content-language", "content-location"})

_PIECE_BYTES: Final = 64 * 1024

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Gives all addresses of a host, in the order in which to try them; raises `OSError` if there is none."""


class BlockedError(PermanentError):
    """The request would leave the public internet."""

    def __init__(self) -> None:
        super().__init__(BLOCKED)


class RedirectRejectedError(PermanentError):
    """The answer leads on to where this request may not go, or too far."""


class TooLargeError(PermanentError):
    """The answer is longer than the caller reads."""


class UnreachableError(ConnectionError):
    """The other side did not answer, or not in HTTP. Another attempt may work."""


class UnresolvedError(UnreachableError):
    """The name of the host leads to no address."""


class UntrustedError(UnreachableError):
    """The other side could not prove who it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundRequest:
    """A request as its author wants it; what may not be sent is dropped on the way.

    Args:
        method: Upper case.
        url: http or https; user and password in it become basic authentication.
        headers: Names and values as given.
        body: None for none.
        follows: Whether redirects are followed; else they are the answer.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    follows: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundResponse:
    """The last answer, after redirects.

    Args:
        status: The HTTP status.
        headers: Lower-case names; the last one wins where a name is repeated.
        body: Decompressed.
        url: Where the answer came from.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def text(self) -> str:
        """The body in its charset, UTF-8 if that is not known; what is no text becomes U+FFFD, `\\u0000` too."""
        found = re.search(r"charset=\"?([\w.:-]+)", self.headers.get("content-type", ""), re.IGNORECASE)
        charset = found[1] if found and _CHARSET.fullmatch(found[1]) else "utf-8"
        try:
            decoded = self.body.decode(charset, errors="replace")
        except LookupError:
            decoded = self.body.decode(errors="replace")
        return re.sub("[\x00\ud800-\udfff]", "\ufffd", decoded)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundStream:
    """An answer whose body is still coming in.

    Args:
        status: The HTTP status.
        headers: Lower-case names.
        url: Where the answer comes from.
        chunks: The decompressed body, once; ends with `PermanentError` beyond the cap.
    """

    status: int
    headers: Mapping[str, str]
    url: str
    chunks: AsyncIterator[bytes]


async def resolve_by_system(host: str, port: int) -> list[str]:
    """Ask the system's resolver, in a thread."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Return whether an address belongs to everybody's internet; False for anything that is no address.

    >>> is_public("1.1.1.1"), is_public("::ffff:1.1.1.1"), is_public("169.254.169.254")
    (True, False, False)
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    match ip:
        case IPv4Address():
            return not any(ip in network for network in _NOT_PUBLIC_V4)
        case IPv6Address():
            return ip in _UNICAST_V6 and not any(ip in network for network in _NOT_PUBLIC_V6)


def refuse_private(url: str, *, allow_internal: bool = False) -> None:
    """Refuse an address that requests could not go to, before it is stored; what it leads to is checked at each use.

    A host name that leads nowhere now is accepted: it may later.

    Raises:
        PermanentError: It is no http(s) address, or leads to a private one.
    """
    parsed = parse_url(url)
    if allow_internal:
        return
    try:
        found = socket.getaddrinfo(parsed.host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    if not all(is_public(str(address[0])) for *_, address in found):
        raise BlockedError


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
        self._backend = _CheckedBackend(resolve, allow_internal=allow_internal)
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
                headers = _headers_of(response)
                try:
                    yield OutboundStream(
                        status=response.status, headers=headers, url=url, chunks=_decoded(response, max_body_bytes)
                    )
                finally:
                    await response.aclose()


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens sockets to addresses it has checked itself."""

    def __init__(self, resolve: Resolve, *, allow_internal: bool) -> None:
        self._resolve = resolve
        self._allow_internal = allow_internal
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers; none is tried unless all are public."""
        addresses = await self._addresses(host, port)
        if not self._allow_internal and not all(map(is_public, addresses)):
            raise BlockedError
        for address in addresses[:-1]:
            try:
                return await self._sockets.connect_tcp(address, port, 5.0)  # 5 s: leave time for the next address
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._sockets.connect_tcp(addresses[-1], port, timeout)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Refuse."""
        raise BlockedError

    async def sleep(self, seconds: float) -> None:
        """Wait between connection attempts of the pool."""
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise UnresolvedError(f"cannot resolve host {host!r}: {exc}") from exc
        if not addresses:
            raise UnresolvedError(f"host {host!r} has no address")
        return addresses


async def _follow(pool: httpcore.AsyncConnectionPool, request: OutboundRequest) -> tuple[httpcore.Response, str]:
    """Send the request and follow redirects; return the first answer that is none, and its URL."""
    url = parse_url(request.url)
    headers = _sendable(request.headers)
    sent = replace(request, headers=headers)
    for hop in range(MAX_REDIRECTS + 1):
        try:
            response = await pool.handle_async_request(_wire_request(sent, url))
        except BlockedError as blocked:
            if hop == 0:
                raise
            raise RedirectRejectedError(blocked.message) from blocked
        location = _headers_of(response).get("location")
        if response.status not in _REDIRECTS or not location or not request.follows:
            return response, without_credentials(str(url))
        await response.aclose()
        target = parse_url(str(_joined(url, location)))
        sent = _redirected(sent, response.status, is_same_origin=_origin(url) == _origin(target))
        url = target
    raise RedirectRejectedError(f"more than {MAX_REDIRECTS} redirects")


def parse_url(text: str) -> httpx.URL:
    """Return the URL if it is a complete http(s) address; another scheme is blocked, anything else is wrong input."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as exc:
        raise PermanentError(f"invalid url: {exc}") from exc
    if url.scheme not in {"http", "https"}:
        raise BlockedError if url.scheme else PermanentError("invalid url: expected http:// or https://")
    if not url.host:
        raise PermanentError("invalid url: no host")
    return url


def without_credentials(url: str) -> str:
    """Return the URL without user and password, for messages.

    >>> without_credentials("https://me:secret@example.com/a?b=1")
    'https://example.com/a?b=1'
    """
    return re.sub(r"^([a-z]+://)[^/?#]*@", r"\1", url, flags=re.IGNORECASE)


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError) as exc:
        raise PermanentError(f"invalid url in a redirect: {exc}") from exc


def _redirected(request: OutboundRequest, status: int, *, is_same_origin: bool) -> OutboundRequest:
    """Return the request for a redirect's target (RFC 9110 §15.4, with the habits of browsers for 301 and 302)."""
    becomes_get = (status in {302, 303} and request.method != "HEAD") or (status == 301 and request.method == "POST")
    dropped = (_BODY_HEADERS if becomes_get else frozenset()) | (frozenset() if is_same_origin else _CREDENTIAL_HEADERS)
    return OutboundRequest(
        method="GET" if becomes_get else request.method,
        url=request.url,
        headers={name: value for name, value in request.headers.items() if name.lower() not in dropped},
        body=None if becomes_get else request.body,
    )


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme]


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Drop headers with control characters and those that are ours to set."""
    return {
        name: value.strip()
        for name, value in headers.items()
        if _HEADER_NAME.fullmatch(name) and not _CONTROL.search(value) and name.lower() not in _OURS
    }


def _wire_request(request: OutboundRequest, url: httpx.URL) -> httpcore.Request:
    ours = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "gzip, deflate"}
    defaults = {"Accept": "*/*", "User-Agent": USER_AGENT, **_basic_authentication(url)}
    if request.body is not None or request.method in {"POST", "PUT", "PATCH"}:
        ours["Content-Length"] = str(len(request.body or b""))
    given = {name.lower() for name in request.headers}
    missing = {name: value for name, value in defaults.items() if name.lower() not in given}
    headers = {**ours, **missing, **request.headers}
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=[(name.encode("ascii"), _header_bytes(value)) for name, value in headers.items()],
        content=request.body or b"",
    )


def _basic_authentication(url: httpx.URL) -> dict[str, str]:
    if not url.username and not url.password:
        return {}
    return {"Authorization": f"Basic {b64encode(f'{url.username}:{url.password}'.encode()).decode()}"}


def _header_bytes(value: str) -> bytes:
    return value.encode("latin-1" if all(ord(character) < 256 for character in value) else "utf-8", errors="replace")


def _headers_of(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


async def _decoded(response: httpcore.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """Give out the decompressed body piece by piece, up to the cap."""
    inflate = _Inflate(_headers_of(response).get("content-encoding", ""))
    left = max_bytes
    received = 0
    async for chunk in response.aiter_stream():
        received += len(chunk)
        for piece in inflate.feed(chunk):
            left -= len(piece)
            if left < 0 or received > 2 * max_bytes:  # twice: compressed data may be a little longer than plain data
                raise TooLargeError(f"response body is larger than {max_bytes} bytes")
            yield piece
    inflate.finish()


class _Inflate:
    """Undoes a `Content-Encoding` in pieces of at most 64 KiB, since a few KiB can unpack to GiB."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower()
        if self._encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise PermanentError(f"unsupported content-encoding {self._encoding!r}")
        self._is_plain = self._encoding in {"", "identity"}
        self._zlib = self._new()
        self._has_begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Give out what the chunk unpacks to."""
        if self._is_plain:
            yield chunk
            return
        while chunk:
            piece = self._unpack(chunk)
            if piece:
                yield piece
            chunk = self._zlib.unconsumed_tail
            if self._zlib.eof:
                chunk = self._next_member()

    def finish(self) -> None:
        """Raise if the body ended in the middle of its compressed form."""
        if not self._is_plain and self._has_begun and not self._zlib.eof:
            raise UnreachableError("the response body ends too early")

    def _unpack(self, chunk: bytes) -> bytes:
        try:
            return self._zlib.decompress(chunk, _PIECE_BYTES)
        except zlib.error as exc:
            if self._encoding == "deflate" and not self._has_begun:
                self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)  # many servers send deflate without its zlib wrapper
                self._has_begun = True
                return self._unpack(chunk)
            raise UnreachableError(f"the response body is no valid {self._encoding}") from exc
        finally:
            self._has_begun = True

    def _next_member(self) -> bytes:
        """Return what follows the end of a compressed stream if it is a further gzip member; ignore anything else."""
        rest = self._zlib.unused_data
        if self._encoding == "deflate" or not rest.startswith(b"\x1f\x8b"):
            return b""
        self._zlib = self._new()
        return rest

    def _new(self) -> "zlib._Decompress":
        return zlib.decompressobj(zlib.MAX_WBITS | (0 if self._encoding == "deflate" else 16))


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
