"""Which addresses may be reached, and sockets that go nowhere else.

A check of a URL's text cannot promise that, since names resolve to anything, and to something else a moment later. So
the check sits where the connection is made: the name is resolved once, every address of the answer must be public, and
the socket is opened to one of exactly these addresses.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import httpcore
import httpx

from orchestrator.egress.errors import BlockedError, UnresolvedError
from orchestrator.step_errors import PermanentError

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
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Gives all addresses of a host, in the order in which to try them; raises `OSError` if there is none."""


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


class CheckedBackend(httpcore.AsyncNetworkBackend):
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
