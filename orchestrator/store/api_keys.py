"""Keys of tenants. Of a secret only a digest is stored (contract, api §3.1, §18.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.store.session import Transaction

_COLUMNS = "id, tenant_id, name, capabilities, created_at, last_used_at, expires_at, revoked_at IS NOT NULL"
_USE_IS_OLD = "(last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')"
"""Often enough to see which keys are dead, and a write for each request would cost more than the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A tenant's key as it is listed.

    Args:
        last_used_at: Exact to about a minute; None if it was never used.
        expires_at: From when on it opens nothing; None for never.
    """

    id: str
    tenant_id: str
    name: str
    capabilities: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInForce:
    """A key that is neither revoked nor expired.

    Args:
        is_use_due: Its last use was written down more than a minute ago.
    """

    id: str
    tenant_id: str
    capabilities: tuple[str, ...]
    digest: str
    is_use_due: bool


def _key_of(row: Sequence[Any]) -> ApiKey:
    return ApiKey(
        id=row[0],
        tenant_id=row[1],
        name=row[2],
        capabilities=tuple(row[3]),
        created_at=row[4],
        last_used_at=row[5],
        expires_at=row[6],
        revoked=row[7],
    )


def insert(
    tx: Transaction,
    key_id: str,
    digest: str,
    *,
    tenant_id: str,
    name: str,
    capabilities: Sequence[str],
    expires_at: datetime | None,
) -> ApiKey:
    """Store a new key."""
    rows = tx.query(
        "INSERT INTO api_keys (id, digest, tenant_id, name, capabilities, created_at, expires_at) "
        f"VALUES (%s, %s, %s, %s, %s::text[], clock_timestamp(), %s) RETURNING {_COLUMNS}",
        (key_id, digest, tenant_id, name, list(capabilities), expires_at),
    )
    return _key_of(rows[0])


def in_force(tx: Transaction, digests: Sequence[str]) -> KeyInForce | None:
    """Find the key that has one of some digests; None if there is none, or it is revoked or expired."""
    rows = tx.query(
        f"SELECT id, tenant_id, capabilities, digest, {_USE_IS_OLD} FROM api_keys WHERE digest = ANY(%s) "
        "AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())",
        (list(digests),),
    )
    if not rows:
        return None
    key_id, tenant_id, capabilities, digest, is_use_due = rows[0]
    return KeyInForce(
        id=key_id, tenant_id=tenant_id, capabilities=tuple(capabilities), digest=digest, is_use_due=is_use_due
    )


def find(tx: Transaction, tenant_id: str, *, limit: int) -> list[ApiKey]:
    """List the keys of a tenant, revoked ones too, the newest first."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM api_keys WHERE tenant_id = %s ORDER BY created_at DESC, id LIMIT %s",
        (tenant_id, limit),
    )
    return [_key_of(row) for row in rows]


def revoke(tx: Transaction, key_id: str, tenant_id: str | None) -> bool:
    """Let a key open nothing from the commit on; False if the tenant (None: any) has no such key. Repeatable."""
    return bool(
        tx.execute(
            "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, clock_timestamp()) "
            "WHERE id = %s AND (%s::text IS NULL OR tenant_id = %s)",
            (key_id, tenant_id, tenant_id),
        )
    )


def note_use(tx: Transaction, key_id: str) -> None:
    """Write down that a key was used, unless another process does so now or has done so in the last minute."""
    tx.execute(
        "WITH due AS MATERIALIZED (SELECT id FROM api_keys "
        f"WHERE id = %s AND {_USE_IS_OLD} FOR UPDATE SKIP LOCKED) "
        "UPDATE api_keys k SET last_used_at = clock_timestamp() FROM due WHERE k.id = due.id",
        (key_id,),
    )
