"""Limits by key: at most so many starts in a window (contract, api §20.4)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from orchestrator.store.session import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most `max_count` starts under a key within `window_seconds`."""

    tenant_id: str
    resource_key: str
    max_count: int
    window_seconds: int
    created_at: datetime
    updated_at: datetime


_COLUMNS = ", ".join(each.name for each in fields(RateLimit))


def _limit_of(row: Sequence[Any]) -> RateLimit:
    return RateLimit(**dict(zip(_COLUMNS.split(", "), row, strict=True)))


def put(tx: Transaction, tenant_id: str, resource_key: str, max_count: int, window_seconds: int) -> RateLimit:
    """Set the limit of a key, whether there was one or not."""
    rows = tx.query(
        f"INSERT INTO rate_limits ({_COLUMNS}) VALUES (%s, %s, %s, %s, statement_timestamp(), statement_timestamp()) "
        "ON CONFLICT (tenant_id, resource_key) DO UPDATE SET max_count = EXCLUDED.max_count, "
        f"window_seconds = EXCLUDED.window_seconds, updated_at = EXCLUDED.updated_at RETURNING {_COLUMNS}",
        (tenant_id, resource_key, max_count, window_seconds),
    )
    return _limit_of(rows[0])


def get(tx: Transaction, tenant_id: str, resource_key: str) -> RateLimit | None:
    """Read the limit of a key; None if the tenant has set none."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM rate_limits WHERE tenant_id = %s AND resource_key = %s", (tenant_id, resource_key)
    )
    return _limit_of(rows[0]) if rows else None


def owners(tx: Transaction, resource_key: str) -> list[str]:
    """List the tenants that have a limit of a key."""
    text = "SELECT tenant_id FROM rate_limits WHERE resource_key = %s ORDER BY tenant_id"
    return [row[0] for row in tx.query(text, (resource_key,))]


def find(tx: Transaction, tenant_id: str | None, *, offset: int, limit: int) -> list[RateLimit]:
    """List limits of one tenant, or of all, by tenant and key."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM rate_limits WHERE (%(tenant)s IS NULL OR tenant_id = %(tenant)s) "
        "ORDER BY tenant_id, resource_key LIMIT %(limit)s OFFSET %(offset)s",
        {"tenant": tenant_id, "limit": limit, "offset": offset},
    )
    return [_limit_of(row) for row in rows]


def delete(tx: Transaction, tenant_id: str, resource_key: str) -> bool:
    """Take the limit of a key away; False if there was none."""
    return bool(
        tx.execute("DELETE FROM rate_limits WHERE tenant_id = %s AND resource_key = %s", (tenant_id, resource_key))
    )
