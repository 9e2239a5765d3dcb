"""Requests about what limits and shares out the use of the outside, and about published versions.

Source: contract, api §9, §17.2, §17.3, §20.4, §20.5.
"""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

from orchestrator.client.calls import DEFAULT_NAME, Id
from orchestrator.client.shapes import Shape
from orchestrator.client.transport import Call

Form = TypeVar("Form", bound=Shape)


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
    return Call(method="POST", path="/pools", body=body, read=_one(Pool))


def pools() -> Call[tuple[Pool, ...]]:
    """List pools."""
    return _rows("/pools", Pool)


def pool(pool_id: Id) -> Call[Pool]:
    """Read a pool."""
    return Call(method="GET", path=f"/pools/{_part(pool_id)}", read=_one(Pool), may_repeat=True)


def delete_pool(pool_id: Id) -> Call[None]:
    """Remove a pool."""
    return Call(method="DELETE", path=f"/pools/{_part(pool_id)}", read=_nothing)


def add_resource(pool_id: Id, values: Mapping[str, Any]) -> Call[Resource]:
    """Put a resource into a pool."""
    path = f"/pools/{_part(pool_id)}/resources"
    return Call(method="POST", path=path, body=dict(values), read=_one(Resource))


def resources(pool_id: Id) -> Call[tuple[Resource, ...]]:
    """List what is in a pool."""
    return _rows(f"/pools/{_part(pool_id)}/resources", Resource)


def change_resource(pool_id: Id, resource_id: Id, changes: Mapping[str, Any]) -> Call[Resource]:
    """Change a resource."""
    path = f"/pools/{_part(pool_id)}/resources/{_part(resource_id)}"
    return Call(method="PUT", path=path, body=dict(changes), read=_one(Resource), may_repeat=True)


def remove_resource(pool_id: Id, resource_id: Id) -> Call[None]:
    """Take a resource out of its pool."""
    path = f"/pools/{_part(pool_id)}/resources/{_part(resource_id)}"
    return Call(method="DELETE", path=path, read=_nothing, may_repeat=True)


# -- limits ----------------------------------------------------------------------------------------------------------


def set_rate_limit(tenant: str | None, key: str, max_count: int, window_seconds: int) -> Call[RateLimit]:
    """Set the limit of a key."""
    body = {
        "tenant_id": tenant or DEFAULT_NAME,
        "resource_key": key,
        "max_count": max_count,
        "window_seconds": window_seconds,
    }
    return Call(method="POST", path="/rate-limits", body=body, read=_one(RateLimit), may_repeat=True)


def rate_limits() -> Call[tuple[RateLimit, ...]]:
    """List limits."""
    return _rows("/rate-limits", RateLimit)


def rate_limit(key: str) -> Call[RateLimit]:
    """Read the limit of a key."""
    return Call(method="GET", path=f"/rate-limits/{_part(key)}", read=_one(RateLimit), may_repeat=True)


def delete_rate_limit(key: str) -> Call[None]:
    """Take the limit of a key away."""
    return Call(method="DELETE", path=f"/rate-limits/{_part(key)}", read=_nothing)


# -- breakers --------------------------------------------------------------------------------------------------------


def breakers() -> Call[tuple[Breaker, ...]]:
    """List breakers."""
    return _rows("/circuit-breakers", Breaker)


def breaker(handler: str) -> Call[Breaker]:
    """Read the breaker of a handler."""
    return Call(method="GET", path=f"/circuit-breakers/{_part(handler)}", read=_one(Breaker), may_repeat=True)


def configure_breaker(handler: str, failure_threshold: int, cooldown_secs: int, on_open: str) -> Call[Breaker]:
    """Set how the breaker of a handler works."""
    body = {
        "handler": handler,
        "failure_threshold": failure_threshold,
        "cooldown_secs": cooldown_secs,
        "on_open": on_open,
    }
    return Call(method="POST", path="/circuit-breakers", body=body, read=_one(Breaker), may_repeat=True)


def reset_breaker(handler: str) -> Call[None]:
    """Close the breaker of a handler."""
    return Call(method="POST", path=f"/circuit-breakers/{_part(handler)}/reset", read=_nothing, may_repeat=True)


# -- published versions ----------------------------------------------------------------------------------------------


def promote(name: str, tenant: str | None, namespace: str, version: int | None) -> Call[Promoted]:
    """Bring a version to production."""
    body: dict[str, Any] = {"namespace": namespace, "version": version}
    if tenant is not None:
        body["tenant_id"] = tenant
    path = f"/sequences/{_part(name)}/promote"
    return Call(method="POST", path=path, body=body, read=_one(Promoted), may_repeat=True)


def unpublish(name: str, namespace: str, *, delete: bool) -> Call[None]:
    """Withdraw all versions of a name."""
    body = {"namespace": namespace, "delete": delete}
    path = f"/sequences/{_part(name)}/unpublish"
    return Call(method="POST", path=path, body=body, read=_nothing, may_repeat=not delete)


def _part(written: Id) -> str:
    return quote(str(written), safe="")


def _one(shape: type[Form]) -> Any:
    return lambda _status, body: shape.model_validate(body)


def _rows(path: str, shape: type[Form]) -> Call[tuple[Form, ...]]:
    return Call(
        method="GET",
        path=path,
        may_repeat=True,
        read=lambda _status, body: tuple(shape.model_validate(each) for each in body),
    )


def _nothing(_status: int, _body: Any) -> None:
    return None
