"""Who calls: keys, tenants, and what must be configured before anyone may (contract, api §3).

Every request passes `identify` before it is routed, so no endpoint can forget it.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from orchestrator.errors import ConfigurationError, Forbidden
from orchestrator.settings import Settings

PUBLIC_PATHS = frozenset({"/health/live", "/health/ready", "/info"})
"""Answered without a key and without a tenant."""
_PUBLIC_WEBHOOK = re.compile(r"/webhooks/(?!(?:outbox|deliveries)$)[^/]+")
"""Addresses of the public webhook; what administers webhooks wins over a trigger of that slug."""


def is_webhook(path: str) -> bool:
    """Tell whether an address is one of the public webhook.

    >>> [is_webhook(path) for path in ("/webhooks/orders", "/webhooks/outbox", "/webhooks/a/b")]
    [True, False, False]
    """
    return _PUBLIC_WEBHOOK.fullmatch(path) is not None


def is_public(method: str, path: str) -> bool:
    """Tell whether a request needs neither key nor tenant."""
    return path in PUBLIC_PATHS or (method == "POST" and is_webhook(path))


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a request acts.

    Args:
        tenant: The one tenant the request sees; None for a caller that sees all.
        is_admin: Whether administrative endpoints are open: the root key, or a server without one.
    """

    tenant: str | None
    is_admin: bool

    def claim_tenant(self, written: str) -> str:
        """Give the tenant of something to be created, from the body; Forbidden if it is not the caller's."""
        if self.tenant is not None and written != self.tenant:
            raise Forbidden("tenant_id in body does not match X-Tenant-Id header")
        return written

    def narrowed(self, asked: str | None) -> str | None:
        """Give the tenant a list is about: the caller's, else the one asked for, else None for all."""
        return self.tenant or asked


class Refused(Exception):
    """The request may not pass; answered with this status and nothing else."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def identify(headers: Mapping[str, str], settings: Settings) -> Caller:
    """Check the key, then the tenant; raises `Refused`.

    Args:
        headers: By lower-case name.
    """
    if settings.api_key and not _is_root_key(headers, settings.api_key):
        raise Refused(401)
    tenant = headers.get("x-tenant-id", "").strip() or None
    if tenant is None and settings.require_tenant_header:
        raise Refused(400)
    return Caller(tenant=tenant, is_admin=True)


def _is_root_key(headers: Mapping[str, str], root_key: str) -> bool:
    given = headers.get("x-api-key")
    if given is None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else ""
    return secrets.compare_digest(given.encode(), root_key.encode())


def check_configuration(settings: Settings, *, is_insecure: bool) -> None:
    """Refuse to serve with settings that would leave the API open by accident.

    With `--insecure` no key is asked for even if one is set: pass settings with an empty `api_key` to `create_app`.

    Raises:
        ConfigurationError: Which setting, and what to do.
    """
    if is_insecure:
        return
    if not settings.api_key:
        raise ConfigurationError("ORCH8_API_KEY is not set: set it, or start with --insecure")
    if not settings.require_tenant_header and not settings.allow_no_tenant_isolation:
        raise ConfigurationError(
            "ORCH8_REQUIRE_TENANT_HEADER=false with an API key lets its holders see all tenants: "
            "set ORCH8_ALLOW_NO_TENANT_ISOLATION=true to confirm"
        )


async def caller_of(request: Request) -> Caller:
    """Give the caller that was identified before routing."""
    caller: Caller = request.scope["caller"]
    return caller


CallerDependency = Annotated[Caller, Depends(caller_of)]
