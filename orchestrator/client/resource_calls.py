"""Requests about what limits and shares out the use of the outside, and about published versions.

Source: contract, api §9, §17.2, §17.3, §20.4, §20.5.
"""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from orchestrator.client.calls import DEFAULT_NAME, Id
from orchestrator.client.forms import part, read_one, read_rows, send, send_blindly
from orchestrator.client.shapes import Shape
from orchestrator.client.transport import Call


class Pool(Shape):
    """Resources of a tenant that steps take turns with."""

    id: UUID
    tenant_id: str
    name: str
    strategy: str
    round_robin_index: int
    created_at: datetime
    updated_at: datetime


class Resource(Shape):
    """A resource of a pool; a `daily_cap` of 0 is none, its usage counts for its date in UTC."""

    id: UUID
    pool_id: UUID
    resource_key: str
    name: str
    weight: int
    enabled: bool
    daily_cap: int
    daily_usage: int
    daily_usage_date: date | None = None
    warmup_start: date | None = None
    warmup_days: int
    warmup_start_cap: int
    created_at: datetime


class RateLimit(Shape):
    """At most `max_count` starts under a key within `window_seconds`."""

    tenant_id: str
    resource_key: str
    max_count: int
    window_seconds: int
    created_at: datetime
    updated_at: datetime


class Breaker(Shape):
    """The circuit breaker of a handler: `closed`, `open` or `half_open`."""

    tenant_id: str
    handler: str
    state: str
    failure_count: int
    failure_threshold: int
    cooldown_secs: int
    on_open: str
    opened_at: datetime | None = None


class Promoted(Shape):
    """The version that is in production."""

    id: UUID
    version: int


# -- pools -----------------------------------------------------------------------------------------------------------


def create_pool(tenant: str | None, name: str, strategy: str) -> Call[Pool]:
    """Make a pool."""
    body = {"tenant_id": tenant or DEFAULT_NAME, "name": name, "strategy": strategy}
    return send("POST", "/pools", Pool, body)


def pools() -> Call[tuple[Pool, ...]]:
    """List pools."""
    return read_rows("/pools", Pool)


def pool(pool_id: Id) -> Call[Pool]:
    """Read a pool."""
    return read_one(f"/pools/{part(pool_id)}", Pool)


def delete_pool(pool_id: Id) -> Call[None]:
    """Remove a pool."""
    return send_blindly("DELETE", f"/pools/{part(pool_id)}")


def add_resource(pool_id: Id, values: Mapping[str, Any]) -> Call[Resource]:
    """Put a resource into a pool."""
    path = f"/pools/{part(pool_id)}/resources"
    return send("POST", path, Resource, dict(values))


def resources(pool_id: Id) -> Call[tuple[Resource, ...]]:
    """List what is in a pool."""
    return read_rows(f"/pools/{part(pool_id)}/resources", Resource)


def change_resource(pool_id: Id, resource_id: Id, changes: Mapping[str, Any]) -> Call[Resource]:
    """Change a resource."""
    path = f"/pools/{part(pool_id)}/resources/{part(resource_id)}"
    return send("PUT", path, Resource, dict(changes), may_repeat=True)


def remove_resource(pool_id: Id, resource_id: Id) -> Call[None]:
    """Take a resource out of its pool."""
    path = f"/pools/{part(pool_id)}/resources/{part(resource_id)}"
    return send_blindly("DELETE", path, may_repeat=True)


# -- limits ----------------------------------------------------------------------------------------------------------


def set_rate_limit(tenant: str | None, key: str, max_count: int, window_seconds: int) -> Call[RateLimit]:
    """Set the limit of a key."""
    body = {
        "tenant_id": tenant or DEFAULT_NAME,
        "resource_key": key,
        "max_count": max_count,
        "window_seconds": window_seconds,
    }
    return send("POST", "/rate-limits", RateLimit, body, may_repeat=True)


def rate_limits() -> Call[tuple[RateLimit, ...]]:
    """List limits."""
    return read_rows("/rate-limits", RateLimit)


def rate_limit(key: str) -> Call[RateLimit]:
    """Read the limit of a key."""
    return read_one(f"/rate-limits/{part(key)}", RateLimit)


def delete_rate_limit(key: str) -> Call[None]:
    """Take the limit of a key away."""
    return send_blindly("DELETE", f"/rate-limits/{part(key)}")


# -- breakers --------------------------------------------------------------------------------------------------------


def breakers() -> Call[tuple[Breaker, ...]]:
    """List breakers."""
    return read_rows("/circuit-breakers", Breaker)


def breaker(handler: str) -> Call[Breaker]:
    """Read the breaker of a handler."""
    return read_one(f"/circuit-breakers/{part(handler)}", Breaker)


def configure_breaker(handler: str, failure_threshold: int, cooldown_secs: int, on_open: str) -> Call[Breaker]:
    """Set how the breaker of a handler works."""
    body = {
        "handler": handler,
        "failure_threshold": failure_threshold,
        "cooldown_secs": cooldown_secs,
        "on_open": on_open,
    }
    return send("POST", "/circuit-breakers", Breaker, body, may_repeat=True)


def reset_breaker(handler: str) -> Call[None]:
    """Close the breaker of a handler."""
    return send_blindly("POST", f"/circuit-breakers/{part(handler)}/reset", may_repeat=True)


# -- published versions ----------------------------------------------------------------------------------------------


def promote(name: str, tenant: str | None, namespace: str, version: int | None) -> Call[Promoted]:
    """Bring a version to production."""
    body: dict[str, Any] = {"namespace": namespace, "version": version}
    if tenant is not None:
        body["tenant_id"] = tenant
    path = f"/sequences/{part(name)}/promote"
    return send("POST", path, Promoted, body, may_repeat=True)


def unpublish(name: str, namespace: str, *, delete: bool) -> Call[None]:
    """Withdraw all versions of a name."""
    body = {"namespace": namespace, "delete": delete}
    path = f"/sequences/{part(name)}/unpublish"
    return send_blindly("POST", path, body, may_repeat=not delete)
