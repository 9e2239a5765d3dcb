"""Signs bodies as senders of webhooks do (contract, api §15)."""

import base64
import hashlib
import hmac
import time
from uuid import uuid4


def signed(
    content: bytes, *, secret: str = "s3cret", age: float = 0, nonce: str | None = None, **headers: str
) -> dict[str, str]:
    """The headers of a signed body.

    Args:
        age: Seconds since it was signed.
        nonce: One that nobody else has by default.
        headers: In place of those that belong to it, with `_` for `-`; an empty one is left out.
    """
    stamp, nonce = str(int(time.time() - age)), str(uuid4()) if nonce is None else nonce
    digest = hmac.new(secret.encode(), f"{stamp}.{nonce}.".encode() + content, hashlib.sha256).digest()
    made = {
        "content-type": "application/json",
        "x-trigger-timestamp": stamp,
        "x-trigger-nonce": nonce,
        "x-orch8-signature": "v1=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
    }
    made |= {name.replace("_", "-"): value for name, value in headers.items()}
    return {name: value for name, value in made.items() if value}
