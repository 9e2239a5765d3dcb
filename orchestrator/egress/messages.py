"""Requests and answers as their authors see them, and what of a request goes over the wire."""

import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import httpcore
import httpx

USER_AGENT: Final = "orchestrator"
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


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Drop headers with control characters and those that are ours to set."""
    return {
        name: value.strip()
        for name, value in headers.items()
        if _HEADER_NAME.fullmatch(name) and not _CONTROL.search(value) and name.lower() not in _OURS
    }


def wire_request(request: OutboundRequest, url: httpx.URL) -> httpcore.Request:
    """Give the request as it is sent: with the headers that are ours, and those its author has left out."""
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


def headers_of(response: httpcore.Response) -> dict[str, str]:
    """Give the headers of an answer under lower-case names; the last one wins where a name is repeated."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


def redirected(request: OutboundRequest, status: int, *, is_same_origin: bool) -> OutboundRequest:
    """Return the request for a redirect's target (RFC 9110 §15.4, with the habits of browsers for 301 and 302)."""
    becomes_get = (status in {302, 303} and request.method != "HEAD") or (status == 301 and request.method == "POST")
    dropped = (_BODY_HEADERS if becomes_get else frozenset()) | (frozenset() if is_same_origin else _CREDENTIAL_HEADERS)
    return OutboundRequest(
        method="GET" if becomes_get else request.method,
        url=request.url,
        headers={name: value for name, value in request.headers.items() if name.lower() not in dropped},
        body=None if becomes_get else request.body,
    )
