"""Resource pools and what is in them (contract, api §17.2).

The row of a pool is locked before those of its resources, so nothing is put into a pool that is being removed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any
from uuid import UUID

from orchestrator.store.session import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Resources of a tenant that steps take turns with.

    Args:
        round_robin_index: How many choices were made in turn.
    """

    id: UUID
    tenant_id: str
    name: str
    strategy: str
    round_robin_index: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource of a pool.

    Args:
        daily_cap: Uses a day; 0 for any number.
        daily_usage: Uses on `daily_usage_date`.
        warmup_days: Days from `warmup_start` in which the cap rises from `warmup_start_cap`.
    """

    id: UUID
    pool_id: UUID
    resource_key: str
    name: str
    weight: int
    enabled: bool
    daily_cap: int
    daily_usage: int
    daily_usage_date: date | None
    warmup_start: date | None
    warmup_days: int
    warmup_start_cap: int
    created_at: datetime


_POOL = ", ".join(each.name for each in fields(Pool))
_RESOURCE = ", ".join(each.name for each in fields(Resource))


def _pool_of(row: Sequence[Any]) -> Pool:
    return Pool(**dict(zip(_POOL.split(", "), row, strict=True)))


def _resource_of(row: Sequence[Any]) -> Resource:
    return Resource(**dict(zip(_RESOURCE.split(", "), row, strict=True)))


def insert_pool(tx: Transaction, pool_id: UUID, tenant_id: str, name: str, strategy: str) -> Pool | None:
    """Store a new pool; None if the tenant has one of that name."""
    rows = tx.query(
        f"INSERT INTO resource_pools ({_POOL}) "
        "VALUES (%s, %s, %s, %s, 0, statement_timestamp(), statement_timestamp()) "
        f"ON CONFLICT (tenant_id, name) DO NOTHING RETURNING {_POOL}",
        (pool_id, tenant_id, name, strategy),
    )
    return _pool_of(rows[0]) if rows else None


def get_pool(tx: Transaction, pool_id: UUID, tenant_id: str | None = None, *, lock: bool = False) -> Pool | None:
    """Read a pool; None if there is none, or it belongs to another tenant than the one given.

    Args:
        lock: Keep it from being removed until the transaction ends.
    """
    rows = tx.query(
        f"SELECT {_POOL} FROM resource_pools WHERE id = %s" + (" FOR KEY SHARE" if lock else ""), (pool_id,)
    )
    found = _pool_of(rows[0]) if rows else None
    return None if found is None or tenant_id not in {None, found.tenant_id} else found


def find_pools(tx: Transaction, tenant_id: str | None, *, offset: int, limit: int) -> list[Pool]:
    """List pools of one tenant, or of all, the oldest first."""
    rows = tx.query(
        f"SELECT {_POOL} FROM resource_pools WHERE (%(tenant)s IS NULL OR tenant_id = %(tenant)s) "
        "ORDER BY id LIMIT %(limit)s OFFSET %(offset)s",
        {"tenant": tenant_id, "limit": limit, "offset": offset},
    )
    return [_pool_of(row) for row in rows]


def delete_pool(tx: Transaction, pool_id: UUID) -> None:
    """Remove a pool and all that is in it."""
    tx.execute("DELETE FROM resource_pools WHERE id = %s", (pool_id,))
    tx.execute("DELETE FROM pool_resources WHERE pool_id = %s", (pool_id,))


def insert_resource(tx: Transaction, pool_id: UUID, resource_id: UUID, values: Mapping[str, Any]) -> Resource:
    """Put a new resource into a pool, which the caller holds.

    Args:
        values: Columns by name: all that clients set.
    """
    names, given = ", ".join(values), ", ".join(["%s"] * len(values))
    rows = tx.query(
        f"INSERT INTO pool_resources (pool_id, id, enabled, daily_usage, created_at, {names}) "
        f"VALUES (%s, %s, true, 0, clock_timestamp(), {given}) RETURNING {_RESOURCE}",
        (pool_id, resource_id, *values.values()),
    )
    return _resource_of(rows[0])


def get_resource(tx: Transaction, resource_id: UUID) -> Resource | None:
    """Read a resource; None if there is none."""
    rows = tx.query(f"SELECT {_RESOURCE} FROM pool_resources WHERE id = %s", (resource_id,))
    return _resource_of(rows[0]) if rows else None


def find_resources(tx: Transaction, pool_id: UUID, *, offset: int, limit: int) -> list[Resource]:
    """List what is in a pool, the oldest first."""
    rows = tx.query(
        f"SELECT {_RESOURCE} FROM pool_resources WHERE pool_id = %s ORDER BY id LIMIT %s OFFSET %s",
        (pool_id, limit, offset),
    )
    return [_resource_of(row) for row in rows]


def change_resource(tx: Transaction, pool_id: UUID, resource_id: UUID, values: Mapping[str, Any]) -> Resource | None:
    """Write some columns of a resource, by name; None if it is not in this pool."""
    written = ", ".join(f"{name} = %s" for name in values) or "id = id"
    rows = tx.query(
        f"UPDATE pool_resources SET {written} WHERE pool_id = %s AND id = %s RETURNING {_RESOURCE}",
        (*values.values(), pool_id, resource_id),
    )
    return _resource_of(rows[0]) if rows else None


def delete_resource(tx: Transaction, pool_id: UUID, resource_id: UUID) -> None:
    """Take a resource out of a pool; one that is not in it is left alone."""
    tx.execute("DELETE FROM pool_resources WHERE pool_id = %s AND id = %s", (pool_id, resource_id))
