"""The one way out: every request that a sequence can aim at an address of its choice goes through here.

A sequence's author must not reach what only this machine can reach: the metadata service, databases, other tenants'
tools. So addresses are checked where the connection is made (`addresses`), while TLS still verifies the name. Redirects
make new connections and so meet the same check (`sending`). Source: OWASP, Server-Side Request Forgery Prevention Cheat
Sheet. What a request and an answer may hold is in `messages`, how far an answer may unpack in `inflation`.

Nothing comes from the environment: no proxies, no netrc, no certificate overrides.
"""

from orchestrator.egress.addresses import (
    Resolve,
    is_public,
    parse_url,
    refuse_private,
    resolve_by_system,
    without_credentials,
)
from orchestrator.egress.errors import (
    BLOCKED,
    BlockedError,
    RedirectRejectedError,
    TooLargeError,
    UnreachableError,
    UnresolvedError,
    UntrustedError,
)
from orchestrator.egress.messages import USER_AGENT, OutboundRequest, OutboundResponse, OutboundStream
from orchestrator.egress.sending import MAX_BODY_BYTES, MAX_REDIRECTS, Egress

__all__ = [
    "BLOCKED",
    "MAX_BODY_BYTES",
    "MAX_REDIRECTS",
    "USER_AGENT",
    "BlockedError",
    "Egress",
    "OutboundRequest",
    "OutboundResponse",
    "OutboundStream",
    "RedirectRejectedError",
    "Resolve",
    "TooLargeError",
    "UnreachableError",
    "UnresolvedError",
    "UntrustedError",
    "is_public",
    "parse_url",
    "refuse_private",
    "resolve_by_system",
    "without_credentials",
]
