"""How the engine itself posts to addresses that others have given it: signed, bounded, and never raising.

Webhooks and pushed tasks go out through here. The address is guarded (`egress.py`); what went wrong is named by one of
the classes of the wire format (contract, api §16).
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from orchestrator.credential_use import without_cut
from orchestrator.egress import (
    BlockedError,
    Egress,
    OutboundRequest,
    OutboundStream,
    RedirectRejectedError,
    TooLargeError,
    UnreachableError,
    UnresolvedError,
    UntrustedError,
)
from orchestrator.step_errors import PermanentError

TIMEOUT: Final = timedelta(seconds=10)
"""For one try: name, connection, answer (contract, api §16)."""
MAX_EXCERPT_CHARACTERS: Final = 500
"""Of an answer that is a refusal: enough to see why, in lists."""
MAX_IGNORED_BYTES: Final = 64 * 1024
"""How much of an answer is read that nobody wants, so that ordinary receivers are not cut off."""
_NOT_FINAL: Final = frozenset({408, 429})


class ErrorClass(StrEnum):
    """Why a try failed."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    REDIRECT_REJECTED = "redirect_rejected"
    HTTP_STATUS = "http_status"
    SIGNATURE_CONFIGURATION = "signature_configuration"
    RESPONSE_TOO_LARGE = "response_too_large"
    INTERNAL_POLICY = "internal_policy"
    SERIALIZATION = "serialization"
    ABORTED = "aborted"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """What is posted.

    Args:
        url: As it was given.
        body: JSON.
        secret: Signs it; None sends it unsigned.
        second_secret: Signs it, too, while one takes the place of the other.
        follows: Whether redirects are followed; else they are answers.
        reads: Bytes of the answer the caller wants; 0 for only its status.
        secrets: What the body holds of credentials; an excerpt of an answer is cleared of it.
    """

    url: str
    body: bytes
    secret: str | None = None
    second_secret: str | None = None
    follows: bool = False
    reads: int = 0
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What came of one try.

    Args:
        duration_ms: From the first look at the address to the end of the answer.
        status: Of the answer; None without one.
        body: Of the answer, as far as it was asked for.
        error: Why it failed; None if it arrived (2xx, 3xx).
        excerpt: What is worth knowing of a failure.
        is_final: Whether another try is pointless.
    """

    duration_ms: int
    status: int | None = None
    body: bytes = b""
    error: ErrorClass | None = None
    excerpt: str | None = None
    is_final: bool = False


def signature_headers(secret: str | None, body: bytes, *, now: int, second: str | None = None) -> dict[str, str]:
    """Sign a body: HMAC-SHA256 of `<timestamp>.<body>` (contract, api §16); nothing without a secret.

    Args:
        now: Seconds since 1970.
        second: Signs it again, in a header of its own: who knows one of two secrets looks at both.

    >>> signature_headers("s", b"{}", now=1)["X-Orch8-Signature"][:20]
    'sha256=b253639bcd705'
    """
    if not secret:
        return {}
    signed = f"{now}.".encode() + body
    headers = {"X-Orch8-Timestamp": str(now), "X-Orch8-Signature": _signature(secret, signed)}
    return {**headers, "X-Orch8-Second-Signature": _signature(second, signed)} if second else headers


def _signature(secret: str, signed: bytes) -> str:
    return f"sha256={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def post_all(egress: Egress, postings: Sequence[Posting]) -> list[Posted]:
    """Post at the same time; returns what came of each, in order; takes as long as the slowest, 10 s at most."""

    async def together() -> list[Posted]:
        return list(await asyncio.gather(*(post(egress, posting) for posting in postings)))

    return asyncio.run(together())


async def post(egress: Egress, posting: Posting) -> Posted:
    """Post once."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            status, body = await _exchange(egress, posting)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's server makes of it, the loop goes on
        kind = class_of(error)
        text = str(error) or type(error).__name__
        return Posted(
            duration_ms=_since(began),
            error=kind,
            excerpt=_excerpt(f"{kind}: {text}", posting.secrets),
            is_final=isinstance(error, PermanentError),
        )
    if 200 <= status < 400:
        return Posted(duration_ms=_since(began), status=status, body=body)
    return Posted(
        duration_ms=_since(began),
        status=status,
        body=body,
        error=ErrorClass.HTTP_STATUS,
        excerpt=_excerpt(f"HTTP {status}: {_text(body)}", posting.secrets),
        is_final=400 <= status < 500 and status not in _NOT_FINAL,
    )


async def _exchange(egress: Egress, posting: Posting) -> tuple[int, bytes]:
    headers = {
        "Content-Type": "application/json",
        **signature_headers(posting.secret, posting.body, now=int(time.time()), second=posting.second_secret),
    }
    request = OutboundRequest(
        method="POST", url=posting.url, headers=headers, body=posting.body, follows=posting.follows
    )
    async with egress.stream(request, posting.reads or MAX_IGNORED_BYTES) as answer:
        if posting.reads and answer.status < 400:
            return answer.status, b"".join([chunk async for chunk in answer.chunks])
        return answer.status, await _beginning(answer)


async def _beginning(answer: OutboundStream) -> bytes:
    """Read what comes of an answer whose status says all; that it is cut, endless or broken changes nothing."""
    read = bytearray()
    with suppress(PermanentError, UnreachableError, OSError):
        async for chunk in answer.chunks:
            read += chunk
    return bytes(read[: 4 * MAX_EXCERPT_CHARACTERS])


def class_of(error: BaseException) -> ErrorClass:
    """Name the kind of an error."""
    match error:
        case TimeoutError():
            return ErrorClass.TIMEOUT
        case UnresolvedError():
            return ErrorClass.DNS
        case UntrustedError():
            return ErrorClass.TLS
        case UnreachableError() | OSError():
            return ErrorClass.CONNECT
        case BlockedError():
            return ErrorClass.INTERNAL_POLICY
        case RedirectRejectedError():
            return ErrorClass.REDIRECT_REJECTED
        case TooLargeError():
            return ErrorClass.RESPONSE_TOO_LARGE
        case _:
            return ErrorClass.OTHER


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _excerpt(text: str, secrets: Iterable[str]) -> str:
    """Shorten a text for lists; cleared first, because half a secret would not be found any more."""
    return without_cut(text, secrets)[:MAX_EXCERPT_CHARACTERS]


def _text(body: bytes) -> str:
    """Read the beginning of an answer for people; what cannot be stored becomes U+FFFD."""
    return body.decode(errors="replace").replace("\0", "\ufffd")
