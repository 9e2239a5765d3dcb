"""Sessions: data that several instances share (contract, api §17.1).

A session's row is locked after those of the instances that write it, several in ascending order of id.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.core.changes import SessionMemberGone, SessionWritten
from orchestrator.core.shared import folded
from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction

_STATE = "CASE WHEN state = 'active' AND expires_at <= clock_timestamp() THEN 'expired' ELSE state END"
_COLUMNS = f"id, tenant_id, session_key, data, {_STATE}, created_at, updated_at, expires_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session; an active one whose `expires_at` has passed reads as expired."""

    id: UUID
    tenant_id: str
    session_key: str
    data: Any
    state: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


def _session_of(row: Sequence[Any]) -> Session:
    return Session(
        id=row[0],
        tenant_id=row[1],
        session_key=row[2],
        data=row[3],
        state=row[4],
        created_at=row[5],
        updated_at=row[6],
        expires_at=row[7],
    )


def insert(
    tx: Transaction, session_id: UUID, tenant_id: str, session_key: str, data: Any, expires_at: datetime | None
) -> Session | None:
    """Store a new session; None if the tenant has one of that key."""
    rows = tx.query(
        "INSERT INTO sessions (id, tenant_id, session_key, data, state, created_at, updated_at, expires_at) "
        "VALUES (%s, %s, %s, %s, 'active', statement_timestamp(), statement_timestamp(), %s) "
        f"ON CONFLICT (tenant_id, session_key) DO NOTHING RETURNING {_COLUMNS}",
        (session_id, tenant_id, session_key, private(data), expires_at),
    )
    return _session_of(rows[0]) if rows else None


def get(tx: Transaction, session_id: UUID, tenant_id: str | None = None) -> Session | None:
    """Read a session; None if there is none, or it belongs to another tenant than the one given."""
    rows = tx.query(f"SELECT {_COLUMNS} FROM sessions WHERE id = %s", (session_id,))
    if not rows or tenant_id not in {None, rows[0][1]}:
        return None
    return _session_of(rows[0])


def by_key(tx: Transaction, tenant_id: str, session_key: str) -> Session | None:
    """Find the session of a key; None if the tenant has none."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM sessions WHERE tenant_id = %s AND session_key = %s", (tenant_id, session_key)
    )
    return _session_of(rows[0]) if rows else None


def put_data(tx: Transaction, session_id: UUID, data: Any) -> bool:
    """Replace the data; False if there is no such session."""
    return bool(
        tx.execute(
            "UPDATE sessions SET data = %s, updated_at = clock_timestamp() WHERE id = %s", (private(data), session_id)
        )
    )


def put_state(tx: Transaction, session_id: UUID, state: str) -> bool:
    """Set the state; False if there is no such session."""
    return bool(
        tx.execute("UPDATE sessions SET state = %s, updated_at = clock_timestamp() WHERE id = %s", (state, session_id))
    )


def data_of(tx: Transaction, ids: Iterable[UUID | None]) -> dict[UUID | None, Any]:
    """Read the data of some sessions; unknown ids are left out."""
    wanted = [session_id for session_id in ids if session_id is not None]
    return dict(tx.query("SELECT id, data FROM sessions WHERE id = ANY(%s::uuid[])", (wanted,)))


def data_for(tx: Transaction, instance_id: UUID) -> Any:
    """Read the data of the session that an instance is bound to; None if it is bound to none."""
    rows = tx.query(
        "SELECT s.data FROM instances i JOIN sessions s ON s.id = i.session_id WHERE i.id = %s", (instance_id,)
    )
    return rows[0][0] if rows else None


def fold(tx: Transaction, changes: Sequence[SessionWritten | SessionMemberGone]) -> None:
    """Write what some instances have changed into the newest data of their sessions, in order."""
    if not changes:
        return
    ids = sorted({change.session_id for change in changes})
    found = dict(tx.query("SELECT id, data FROM sessions WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE", (ids,)))
    for change in changes:
        if change.session_id in found:
            found[change.session_id] = folded(found[change.session_id], change)
    for session_id, data in found.items():
        put_data(tx, session_id, data)
