"""Sequences: stored definitions and their look-up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from orchestrator.errors import SequenceGone
from orchestrator.store.fence import unless
from orchestrator.store.prepared import array_of, form
from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What starting an instance has to know of a sequence, without its document."""

    id: UUID
    tenant_id: str
    namespace: str
    name: str
    version: int
    deprecated: bool
    content_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDefinition(Head):
    """A stored sequence; `document` is its canonical form as the API writes it back."""

    document: dict[str, Any]


_COLUMNS = "id, tenant_id, namespace, name, version, deprecated, document, content_hash, status"


def _of(row: Sequence[Any]) -> StoredDefinition:
    return StoredDefinition(
        id=row[0],
        tenant_id=row[1],
        namespace=row[2],
        name=row[3],
        version=row[4],
        deprecated=row[5],
        document={**row[6], "deprecated": row[5], "status": row[8]},
        content_hash=row[7],
    )


def insert(tx: Transaction, stored: StoredDefinition) -> bool:
    """Store a new version; False if its id, or its name and version, are taken."""
    return bool(
        tx.execute(
            "INSERT INTO sequences (id, tenant_id, namespace, name, version, status, deprecated, document, "
            "content_hash, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (
                stored.id,
                stored.tenant_id,
                stored.namespace,
                stored.name,
                stored.version,
                stored.document["status"],
                stored.deprecated,
                private(stored.document),
                stored.content_hash,
                stored.document["created_at"],
            ),
        )
    )


def get(tx: Transaction, sequence_id: UUID, tenant_id: str | None = None) -> StoredDefinition | None:
    """Read one version by id; None if there is none, or it belongs to another tenant than the one given."""
    rows = tx.query(f"SELECT {_COLUMNS} FROM sequences WHERE id = %s", (sequence_id,))
    if not rows or (tenant_id is not None and rows[0][1] != tenant_id):
        return None
    return _of(rows[0])


def get_many(tx: Transaction, ids: Sequence[UUID]) -> dict[UUID, StoredDefinition]:
    """Read versions by id; unknown ids are left out."""
    rows = tx.query(f"SELECT {_COLUMNS} FROM sequences WHERE id = ANY(%s::uuid[])", (list(ids),))
    return {row[0]: _of(row) for row in rows}


def versions(tx: Transaction, tenant_id: str, namespace: str, name: str) -> list[StoredDefinition]:
    """Read all versions of a name, highest first, deprecated ones too."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM sequences WHERE tenant_id = %s AND namespace = %s AND name = %s ORDER BY version DESC",
        (tenant_id, namespace, name),
    )
    return [_of(row) for row in rows]


def newest(
    tx: Transaction, tenant_id: str, namespace: str, name: str, *, version: int | None = None
) -> StoredDefinition | None:
    """Read the highest version of a name that is not deprecated, or the version given; None if there is none."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM sequences WHERE tenant_id = %s AND namespace = %s AND name = %s "
        + ("AND NOT deprecated ORDER BY version DESC LIMIT 1" if version is None else "AND version = %s"),
        (tenant_id, namespace, name) if version is None else (tenant_id, namespace, name, version),
    )
    return _of(rows[0]) if rows else None


_HOLD = form("hold_sequences", ["uuid[]"], "SELECT id FROM sequences WHERE id = ANY($1) ORDER BY id FOR KEY SHARE")


def hold(tx: Transaction, ids: Iterable[UUID]) -> None:
    """Keep versions from being deleted until the transaction ends; one lock for each, whatever hangs on it.

    Locks are taken in ascending order of id, and after those of instances. Many may hold a version at once.

    Raises:
        SequenceGone: One does not exist, or its deletion was committed while this has waited for it.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return
    held = tx.ask(_HOLD, [array_of(wanted)])
    if gone := set(wanted) - {row[0] for row in held}:
        raise SequenceGone(min(gone))


_HOLD_AS_SEEN = form(
    "hold_as_seen",
    ["uuid", "text", "boolean"],
    "WITH held AS (SELECT FROM sequences WHERE id = $1 AND tenant_id = $2 AND deprecated = $3 FOR KEY SHARE) "
    + unless("held"),
)


def hold_as_seen(tx: Transaction, seen: Iterable[Head]) -> None:
    """Keep versions as `hold` does; if one is no longer as it was seen, nothing behind this is written.

    An id has always stood for the same content, so what may have changed is whether it is there, and deprecated.
    """
    for head in sorted(seen, key=lambda head: head.id):
        tx.tell(_HOLD_AS_SEEN, (head.id, head.tenant_id, head.deprecated))


_HEADS = form(
    "heads",
    ["uuid[]"],
    "SELECT id, tenant_id, namespace, name, version, deprecated, content_hash FROM sequences WHERE id = ANY($1)",
)


def heads(tx: Transaction, ids: Sequence[UUID]) -> dict[UUID, Head]:
    """Read the heads of some versions; unknown ids are left out."""
    names = ("id", "tenant_id", "namespace", "name", "version", "deprecated", "content_hash")
    return {row[0]: Head(**dict(zip(names, row, strict=True))) for row in tx.ask(_HEADS, [array_of(ids)])}


def highest_version(tx: Transaction, tenant_id: str, namespace: str, name: str) -> int:
    """Give the highest version number of a name, deprecated or not; 0 if the name is new."""
    rows = tx.query(
        "SELECT coalesce(max(version), 0) FROM sequences WHERE tenant_id = %s AND namespace = %s AND name = %s",
        (tenant_id, namespace, name),
    )
    highest: int = rows[0][0]
    return highest


def find(
    tx: Transaction, *, tenant_id: str | None, namespace: str | None, offset: int, limit: int
) -> list[StoredDefinition]:
    """List sequences by tenant, namespace, name and then version, highest first."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM sequences WHERE (%(tenant)s IS NULL OR tenant_id = %(tenant)s) "
        "AND (%(namespace)s IS NULL OR namespace = %(namespace)s) "
        "ORDER BY tenant_id, namespace, name, version DESC OFFSET %(offset)s LIMIT %(limit)s",
        {"tenant": tenant_id, "namespace": namespace, "offset": offset, "limit": limit},
    )
    return [_of(row) for row in rows]


def deprecate(tx: Transaction, sequence_id: UUID) -> bool:
    """Mark a version as deprecated; False if there is none."""
    return bool(tx.execute("UPDATE sequences SET deprecated = true WHERE id = %s", (sequence_id,)))


def set_status(tx: Transaction, sequence_id: UUID, status: str) -> None:
    """Write the status of a version."""
    tx.execute("UPDATE sequences SET status = %s WHERE id = %s", (status, sequence_id))
