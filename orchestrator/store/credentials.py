"""Credentials: secrets that steps name and never hold (contract, api §18.1).

Ids are unique over all tenants. Value and refresh token are sealed when the installation has a key.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from orchestrator.store.sealing import PrivateText
from orchestrator.store.session import Transaction

_COLUMNS = (
    "id, tenant_id, name, kind, value, enabled, expires_at, refresh_url, refresh_token, description, created_at, "
    "updated_at"
)
_CHANGEABLE = ("name", "kind", "value", "enabled", "expires_at", "refresh_url", "refresh_token", "description")
_SEALED = frozenset({"value", "refresh_token"})


class CredentialKind(StrEnum):
    """What a credential is for."""

    API_KEY = "api_key"
    OAUTH2 = "oauth2"
    BASIC = "basic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A secret under a name; what is secret does not print.

    Args:
        value: What a step is given: JSON text, or any text.
        expires_at: When the value stops being good; None for never.
        refresh_url: Where a new value is had for the refresh token.
    """

    id: str
    tenant_id: str
    name: str
    kind: CredentialKind
    value: str
    enabled: bool = True
    expires_at: datetime | None = None
    refresh_url: str | None = None
    refresh_token: str | None = None
    description: str | None = None
    created_at: datetime
    updated_at: datetime

    def __repr__(self) -> str:
        return f"Credential(id={self.id!r}, tenant_id={self.tenant_id!r}, kind={self.kind.value!r})"

    @property
    def is_renewable(self) -> bool:
        """Tell whether it can be renewed before it expires."""
        return (
            self.kind is CredentialKind.OAUTH2
            and self.expires_at is not None
            and bool(self.refresh_url)
            and bool(self.refresh_token)
        )


def _credential_of(tx: Transaction, row: Sequence[Any]) -> Credential:
    members = dict(zip(_COLUMNS.split(", "), row, strict=True))
    members["kind"] = CredentialKind(members["kind"])
    members |= {name: tx.opened_text(members[name]) for name in _SEALED}
    return Credential(**members)


def _written(name: str, value: Any) -> Any:
    return PrivateText(value) if name in _SEALED and value is not None else value


def insert(tx: Transaction, credential: Credential) -> bool:
    """Store a new credential; False if anybody has one of that id."""
    names = _COLUMNS.split(", ")
    places = ", ".join(["%s"] * len(names))
    values = tuple(_written(name, getattr(credential, name)) for name in names)
    return bool(
        tx.execute(f"INSERT INTO credentials ({_COLUMNS}) VALUES ({places}) ON CONFLICT (id) DO NOTHING", values)
    )


def get(tx: Transaction, credential_id: str, *, lock: bool = False) -> Credential | None:
    """Read a credential; None if there is none of that id."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM credentials WHERE id = %s" + (" FOR UPDATE" if lock else ""), (credential_id,)
    )
    return _credential_of(tx, rows[0]) if rows else None


def of_tenant(tx: Transaction, tenant_id: str, ids: Iterable[str]) -> dict[str, Credential]:
    """Read some credentials of a tenant; unknown and foreign ids are left out."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM credentials WHERE tenant_id = %s AND id = ANY(%s)", (tenant_id, sorted(set(ids)))
    )
    return {row[0]: _credential_of(tx, row) for row in rows}


def find(tx: Transaction, tenant_id: str | None, limit: int) -> list[Credential]:
    """List credentials by id, of one tenant or of all."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM credentials WHERE (%(tenant)s IS NULL OR tenant_id = %(tenant)s) "
        "ORDER BY id LIMIT %(limit)s",
        {"tenant": tenant_id, "limit": limit},
    )
    return [_credential_of(tx, row) for row in rows]


def update(tx: Transaction, credential: Credential) -> None:
    """Write what may change of a credential; a renewal that is under way comes to nothing."""
    assignments = ", ".join(f"{name} = %s" for name in _CHANGEABLE)
    values = tuple(_written(name, getattr(credential, name)) for name in _CHANGEABLE)
    tx.execute(
        f"UPDATE credentials SET {assignments}, updated_at = clock_timestamp(), renewal = NULL, renewal_until = NULL "
        "WHERE id = %s",
        (*values, credential.id),
    )


def delete(tx: Transaction, credential_id: str) -> None:
    """Remove a credential."""
    tx.execute("DELETE FROM credentials WHERE id = %s", (credential_id,))


def expiring(tx: Transaction, within: timedelta, limit: int) -> list[str]:
    """Name enabled credentials that can be renewed, expire soon or have expired, and are being renewed by nobody."""
    rows = tx.query(
        "SELECT id FROM credentials WHERE enabled AND kind = 'oauth2' AND refresh_url IS NOT NULL "
        "AND refresh_token IS NOT NULL AND expires_at <= clock_timestamp() + %s "
        "AND (renewal_until IS NULL OR renewal_until <= clock_timestamp()) ORDER BY expires_at LIMIT %s",
        (within, limit),
    )
    return [row[0] for row in rows]


def begin_renewal(tx: Transaction, credential_id: str, renewal: UUID, *, within: timedelta, lease: timedelta) -> bool:
    """Take the right to renew a credential that expires soon; False if it does not, or another is at it.

    Args:
        renewal: Names the attempt.
        lease: After so long another may try.
    """
    return bool(
        tx.execute(
            "UPDATE credentials SET renewal = %s, renewal_until = clock_timestamp() + %s WHERE id = %s AND enabled "
            "AND expires_at <= clock_timestamp() + %s "
            "AND (renewal_until IS NULL OR renewal_until <= clock_timestamp())",
            (renewal, lease, credential_id, within),
        )
    )


def end_renewal(
    tx: Transaction,
    credential_id: str,
    renewal: UUID,
    *,
    value: str,
    refresh_token: str,
    lasts: timedelta,
) -> bool:
    """Store what a renewal has brought; False if it is no longer wanted.

    Args:
        lasts: How long the value is good.
    """
    return bool(
        tx.execute(
            "UPDATE credentials SET value = %s, refresh_token = %s, expires_at = clock_timestamp() + %s, "
            "updated_at = clock_timestamp(), renewal = NULL, renewal_until = NULL WHERE id = %s AND renewal = %s",
            (PrivateText(value), PrivateText(refresh_token), lasts, credential_id, renewal),
        )
    )


def give_up_renewal(tx: Transaction, credential_id: str, renewal: UUID) -> None:
    """Let others try a renewal that has failed."""
    tx.execute(
        "UPDATE credentials SET renewal = NULL, renewal_until = NULL WHERE id = %s AND renewal = %s",
        (credential_id, renewal),
    )


def is_being_renewed(tx: Transaction, credential_id: str) -> bool:
    """Tell whether somebody is at a renewal."""
    statement = "SELECT 1 FROM credentials WHERE id = %s AND renewal_until > clock_timestamp()"
    return bool(tx.query(statement, (credential_id,)))
