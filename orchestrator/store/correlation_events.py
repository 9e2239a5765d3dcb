"""Correlation events: what producers outside tell, kept until somebody waits for it (contract, api §21)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """What a producer tells."""

    id: UUID
    tenant_id: str
    event_name: str
    producer_event_id: str
    correlation_key: str
    payload: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationEvent(NewEvent):
    """What a producer has told: `pending` until it is consumed, or expires."""

    status: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events a list is about; what is None matches any."""

    tenant_id: str
    status: str | None = None
    event_name: str | None = None
    correlation_key: str | None = None


_COLUMNS = ", ".join(each.name for each in fields(CorrelationEvent))


def _event_of(row: Sequence[Any]) -> CorrelationEvent:
    return CorrelationEvent(**dict(zip(_COLUMNS.split(", "), row, strict=True)))


def insert(tx: Transaction, event: NewEvent) -> UUID | None:
    """Store an event; the id of the first one if its producer has told it before, None if it is new."""
    names = ("id", "tenant_id", "event_name", "producer_event_id", "correlation_key")
    stored = tx.execute(
        f"INSERT INTO correlation_events ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, 'pending', clock_timestamp()) "
        "ON CONFLICT (tenant_id, producer_event_id) DO NOTHING",
        (*(getattr(event, name) for name in names), private(event.payload)),
    )
    if stored:
        return None
    rows = tx.query(
        "SELECT id FROM correlation_events WHERE tenant_id = %s AND producer_event_id = %s",
        (event.tenant_id, event.producer_event_id),
    )
    first: UUID = rows[0][0]
    return first


def get(tx: Transaction, event_id: UUID, tenant_id: str | None) -> CorrelationEvent | None:
    """Read an event; None if there is none, or it belongs to another tenant than the one given."""
    rows = tx.query(f"SELECT {_COLUMNS} FROM correlation_events WHERE id = %s", (event_id,))
    found = _event_of(rows[0]) if rows else None
    return None if found is None or tenant_id not in {None, found.tenant_id} else found


def find(tx: Transaction, wanted: Wanted, *, offset: int, limit: int) -> list[CorrelationEvent]:
    """List events of a tenant, the newest first."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM correlation_events WHERE tenant_id = %(tenant)s "
        "AND (%(status)s IS NULL OR status = %(status)s) AND (%(name)s IS NULL OR event_name = %(name)s) "
        "AND (%(key)s IS NULL OR correlation_key = %(key)s) ORDER BY id DESC LIMIT %(limit)s OFFSET %(offset)s",
        {
            "tenant": wanted.tenant_id,
            "status": wanted.status,
            "name": wanted.event_name,
            "key": wanted.correlation_key,
            "limit": limit,
            "offset": offset,
        },
    )
    return [_event_of(row) for row in rows]
