"""Who calls: keys, tenants, and what must be configured before anyone may (contract, api §3).

Every request passes `identify` before it is routed, so no endpoint can forget it.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from orchestrator.api.capabilities import Capability, is_admin_only, is_allowed
from orchestrator.api.keyring import check_peppers
from orchestrator.errors import ConfigurationError, Forbidden
from orchestrator.settings import Settings
from orchestrator.store.api_keys import KeyInForce

ADMIN_ONLY: Final = b'{"error":"forbidden: API key management requires the root API key"}'
"""The answer of all paths that are open to the root key alone, keys or not."""
ROOT: Final = "root"

FindKey = Callable[[str], Awaitable[KeyInForce | None]]
"""Looks up the tenant key of a secret."""


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a request acts.

    Args:
        tenant: The one tenant the request sees; None for a caller that sees all.
        key_id: The key it came with: `root`, or the id of a tenant's; None where no key is asked for.
    """

    tenant: str | None
    key_id: str | None = None

    @property
    def is_admin(self) -> bool:
        """Tell whether administrative endpoints are open: the root key, or a server without one."""
        return self.key_id in {None, ROOT}

    def claim_tenant(self, written: str) -> str:
        """Give the tenant of something to be created, from the body; Forbidden if it is not the caller's."""
        if self.tenant is not None and written != self.tenant:
            raise Forbidden("tenant_id in body does not match X-Tenant-Id header")
        return written

    def narrowed(self, asked: str | None) -> str | None:
        """Give the tenant a list is about: the caller's, else the one asked for, else None for all."""
        return self.tenant or asked


class Refused(Exception):
    """The request may not pass; answered with this status, and with JSON if there is a body."""

    def __init__(self, status: int, body: bytes = b"") -> None:
        super().__init__(status)
        self.status = status
        self.body = body


async def identify(headers: Mapping[str, str], method: str, path: str, settings: Settings, find_key: FindKey) -> Caller:
    """Check the key, then the tenant; raises `Refused`.

    The root key, and a server without one, are never looked up: they work while the store does not.

    Args:
        headers: By lower-case name.
        path: Without the prefix of the API.
    """
    tenant = headers.get("x-tenant-id", "").strip() or None
    if not settings.api_key:
        return _caller_of_all(tenant, None, settings)
    secret = _given_secret(headers)
    if secrets.compare_digest(secret.encode(), settings.api_key.encode()):
        return _caller_of_all(tenant, ROOT, settings)
    key = await find_key(secret)
    if key is None:
        raise Refused(401)
    if is_admin_only(path):
        raise Refused(403, ADMIN_ONLY)
    if not is_allowed([Capability(each) for each in key.capabilities], method, path):
        raise Refused(403)
    if tenant not in {None, key.tenant_id}:
        raise Refused(403)
    return Caller(tenant=key.tenant_id, key_id=key.id)


def _caller_of_all(tenant: str | None, key_id: str | None, settings: Settings) -> Caller:
    if tenant is None and settings.require_tenant_header:
        raise Refused(400)
    return Caller(tenant=tenant, key_id=key_id)


def _given_secret(headers: Mapping[str, str]) -> str:
    given = headers.get("x-api-key")
    if given is not None:
        return given
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def check_configuration(settings: Settings, *, is_insecure: bool) -> None:
    """Refuse to serve with settings that would leave the API open by accident.

    With `--insecure` no key is asked for even if one is set: pass settings with an empty `api_key` to `create_app`.

    Raises:
        ConfigurationError: Which setting, and what to do.
    """
    check_peppers(settings.api_key_peppers)
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
