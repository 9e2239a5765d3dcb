"""Signatures of those who fire triggers: made with the trigger's secret, over the moment, a nonce and the body.

Whoever reads a signed request on its way may send it again. So a signature is good for some minutes, and its nonce for
one request: the store keeps nonces for longer than any signature is good for.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

OLDEST_SECONDS, AHEAD_SECONDS = 300, 60
"""A signature is taken this long after, and before, the moment it names."""

_STAMP: Final = re.compile(r"\d{1,12}", re.ASCII)
_NONCE: Final = re.compile(r"[\x21-\x7e]{16,128}")


def is_one_of(live: Sequence[str], named: str) -> bool:
    """Tell whether a header names one of some secrets, in constant time.

    Args:
        named: As the server reads headers: a character for each byte.
    """
    sent = named.encode("latin-1", "replace")
    found = [secrets.compare_digest(sent, secret.encode()) for secret in live]
    return any(found)


def signed_nonce(live: Sequence[str], headers: Mapping[str, str], content: bytes, *, now: float) -> str | None:
    """Give the nonce of a body that carries a fresh signature made with one of some secrets; None if it does not.

    Args:
        now: Seconds since 1970.
    """
    stamp = headers.get("x-trigger-timestamp", "")
    nonce = headers.get("x-trigger-nonce", "")
    if _STAMP.fullmatch(stamp) is None or _NONCE.fullmatch(nonce) is None:
        return None
    if not -AHEAD_SECONDS <= now - int(stamp) <= OLDEST_SECONDS:
        return None
    signed = f"{stamp}.{nonce}.".encode() + content
    expected = [_signature(secret, signed) for secret in live]
    return nonce if is_one_of(expected, headers.get("x-orch8-signature", "")) else None


def _signature(secret: str, signed: bytes) -> str:
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return "v1=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
