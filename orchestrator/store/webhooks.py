"""Events on their way outside: queued with the commit they tell of, claimed, sent, parked (contract, api §16).

A row that was sent is gone; one that was given up stays as `parked`. A claim carries a token and ends by itself, so a
sender that dies delays its events and loses none. Events of one instance go to one address one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from orchestrator.core.changes import WebhookQueued
from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction

_COLUMNS = (
    "id, url, event_type, instance_id, payload, status, attempts, last_error, delivery_id, due_at, claimed_at, "
    "created_at"
)
QUEUE: Final = (
    "INSERT INTO webhook_outbox (id, url, event_type, instance_id, payload, status, attempts, due_at, created_at) "
    "VALUES {}"
)
_IS_OF: Final = "(%(tenant)s IS NULL OR (SELECT i.tenant_id FROM instances i WHERE i.id = w.instance_id) = %(tenant)s)"
"""Of a row called w: whose instance it tells of; of one that is gone, nobody's but the caller's who is of no tenant."""
NEW_ROW: Final = "(%s, %s, %s, %s, %s, 'pending', 0, %s, %s)"

# Under READ COMMITTED the row is looked at again once it is locked, the rows before it are not: but none of them can
# come back, as an event is queued under the lock of its instance.
_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT o.id FROM webhook_outbox o
    WHERE o.url = %(url)s AND o.status <> 'parked' AND o.due_at <= statement_timestamp()
    AND NOT EXISTS (SELECT 1 FROM webhook_outbox e WHERE e.instance_id = o.instance_id AND e.url = o.url
                    AND e.number < o.number AND e.status <> 'parked')
    ORDER BY o.due_at, o.number LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE webhook_outbox o SET status = 'in_flight', token = gen_random_uuid(), claimed_at = clock_timestamp(),
    due_at = clock_timestamp() + %(lease)s
FROM due WHERE o.id = due.id
RETURNING o.token, {", ".join(f"o.{name.strip()}" for name in _COLUMNS.split(","))}
"""
_ATTEMPT_COLUMNS = (
    "id, delivery_id, url, event_type, instance_id, attempt_number, attempted_at, duration_ms, success, status_code, "
    "error_class, error_excerpt, signed"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An event for one address.

    Args:
        status: `pending`, `in_flight` or `parked`.
        attempts: Tries that have ended.
        delivery_id: Of the tries so far; None before the first one has ended.
        due_at: When it may be sent; of one in flight, when its sender counts as dead.
    """

    id: UUID
    url: str
    event_type: str
    instance_id: UUID
    payload: dict[str, Any]
    status: str
    attempts: int
    last_error: str | None
    delivery_id: UUID | None
    due_at: datetime
    claimed_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """An event that is ours to send, until the claim ends."""

    token: UUID
    webhook: Webhook


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try, for the history. Shapes: contract, api §16."""

    id: UUID
    delivery_id: UUID
    url: str
    event_type: str
    instance_id: UUID
    attempt_number: int
    attempted_at: datetime
    duration_ms: int
    success: bool
    status_code: int | None
    error_class: str | None
    error_excerpt: str | None
    signed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The tries of one delivery together, with the last one's result."""

    delivery_id: UUID
    url: str
    event_type: str
    instance_id: UUID
    attempts: int
    delivered: bool
    first_attempted_at: datetime
    last_attempted_at: datetime
    last_status_code: int | None
    last_error_class: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries are meant; None asks for nothing."""

    url: str | None = None
    event_type: str | None = None
    delivered: bool | None = None
    error_class: str | None = None


def new_row(instance_id: UUID, queued: WebhookQueued) -> tuple[Any, ...]:
    """Give the row of an event that is to be told."""
    payload = {
        "event_type": queued.event_type,
        "instance_id": str(instance_id),
        "timestamp": queued.created_at.isoformat().replace("+00:00", "Z"),
        "data": queued.data,
    }
    return (
        queued.id,
        queued.url,
        queued.event_type,
        instance_id,
        private(payload),
        queued.created_at,
        queued.created_at,
    )


def claim_due(tx: Transaction, url: str, *, lease: timedelta, limit: int) -> list[Claimed]:
    """Claim what one address is due, at most one event of each instance; empty if nothing is."""
    rows = tx.query(_CLAIM, {"url": url, "lease": lease, "limit": limit})
    return [Claimed(token=row[0], webhook=Webhook(**_named(_COLUMNS, row[1:]))) for row in rows]


def next_due(tx: Transaction, url: str) -> timedelta | None:
    """Say how long until something is due to an address; None if nothing waits for it."""
    rows = tx.query(
        "SELECT min(due_at) - clock_timestamp() FROM webhook_outbox WHERE url = %s AND status <> 'parked' "
        "AND due_at > statement_timestamp()",
        (url,),
    )
    return rows[0][0] if rows else None


def claim(tx: Transaction, webhook_id: UUID, tenant_id: str | None, *, lease: timedelta) -> Claimed | None:
    """Claim one event whatever its turn, as it was before; None if it is gone or somebody is sending it."""
    rows = tx.query(
        f"SELECT gen_random_uuid(), {_COLUMNS} FROM webhook_outbox w WHERE id = %(id)s AND {_IS_OF} "
        "AND (status <> 'in_flight' OR due_at <= clock_timestamp()) FOR UPDATE",
        {"id": webhook_id, "tenant": tenant_id},
    )
    if not rows:
        return None
    tx.execute(
        "UPDATE webhook_outbox SET status = 'in_flight', token = %s, claimed_at = clock_timestamp(), "
        "due_at = clock_timestamp() + %s WHERE id = %s",
        (rows[0][0], lease, webhook_id),
    )
    return Claimed(token=rows[0][0], webhook=Webhook(**_named(_COLUMNS, rows[0][1:])))


def remove(tx: Transaction, webhook_ids: Sequence[UUID]) -> int:
    """Take events off the list: they were sent, or nobody wants them; returns how many were there."""
    return tx.execute("DELETE FROM webhook_outbox WHERE id = ANY(%s::uuid[])", (list(webhook_ids),))


def put_back(
    tx: Transaction, claimed: Claimed, *, status: str, delivery_id: UUID, error: str | None, after: timedelta
) -> bool:
    """End a claim whose try has failed; False if it had ended already and is another's to settle."""
    return bool(
        tx.execute(
            "UPDATE webhook_outbox SET status = %s, attempts = attempts + 1, last_error = %s, delivery_id = %s, "
            "due_at = clock_timestamp() + %s, token = NULL, claimed_at = NULL WHERE id = %s AND token = %s",
            (status, error, delivery_id, after, claimed.webhook.id, claimed.token),
        )
    )


def get(tx: Transaction, webhook_id: UUID, tenant_id: str | None) -> Webhook | None:
    """Read one event; None if it was sent, never was, or is of another tenant."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM webhook_outbox w WHERE id = %(id)s AND {_IS_OF}",
        {"id": webhook_id, "tenant": tenant_id},
    )
    return Webhook(**_named(_COLUMNS, rows[0])) if rows else None


def find(tx: Transaction, tenant_id: str | None, limit: int) -> list[Webhook]:
    """List events that were not sent yet, the oldest first, of one tenant or of all."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM webhook_outbox w WHERE {_IS_OF} ORDER BY number LIMIT %(limit)s",
        {"tenant": tenant_id, "limit": limit},
    )
    return [Webhook(**_named(_COLUMNS, row)) for row in rows]


# -- history ---------------------------------------------------------------------------------------------------------


def record(tx: Transaction, attempts: Sequence[Attempt]) -> None:
    """Write tries into the history."""
    if attempts:
        names = [name.strip() for name in _ATTEMPT_COLUMNS.split(",")]
        template = "(" + ", ".join(["%s"] * len(names)) + ")"
        rows = [tuple(getattr(attempt, name) for name in names) for attempt in attempts]
        tx.execute(f"INSERT INTO webhook_attempts ({_ATTEMPT_COLUMNS}) VALUES {tx.values(template, rows)}")


def forget(tx: Transaction, *, older_than: timedelta, beyond: int) -> int:
    """Remove tries that are old, and those behind the newest ones; returns how many."""
    return tx.execute(
        "DELETE FROM webhook_attempts WHERE attempted_at < greatest(statement_timestamp() - %s, "
        "(SELECT attempted_at FROM webhook_attempts ORDER BY attempted_at DESC OFFSET %s LIMIT 1))",
        (older_than, beyond),
    )


def attempts_of(tx: Transaction, delivery_id: UUID, tenant_id: str | None) -> list[Attempt]:
    """Read the tries of one delivery, in order; empty if there is none, it is forgotten, or of another tenant."""
    rows = tx.query(
        f"SELECT {_ATTEMPT_COLUMNS} FROM webhook_attempts w WHERE delivery_id = %(delivery)s AND {_IS_OF} "
        "ORDER BY attempt_number, attempted_at",
        {"delivery": delivery_id, "tenant": tenant_id},
    )
    return [Attempt(**_named(_ATTEMPT_COLUMNS, row)) for row in rows]


_DELIVERIES = f"""
SELECT a.delivery_id, a.url, a.event_type, a.instance_id, t.attempts, t.delivered, t.first_attempted_at, a.attempted_at,
       a.status_code, a.error_class
FROM (SELECT DISTINCT ON (delivery_id) * FROM webhook_attempts w WHERE {_IS_OF}
      ORDER BY delivery_id, attempt_number DESC) AS a
JOIN (SELECT delivery_id, count(*) AS attempts, bool_or(success) AS delivered, min(attempted_at) AS first_attempted_at
      FROM webhook_attempts GROUP BY delivery_id) AS t ON t.delivery_id = a.delivery_id
WHERE (%(url)s IS NULL OR a.url = %(url)s) AND (%(event_type)s IS NULL OR a.event_type = %(event_type)s)
  AND (%(delivered)s::boolean IS NULL OR t.delivered = %(delivered)s)
  AND (%(error_class)s IS NULL OR a.error_class = %(error_class)s)
ORDER BY a.attempted_at DESC, a.delivery_id LIMIT %(limit)s
"""
"""Reads the whole history, which is bounded."""


def deliveries(tx: Transaction, tenant_id: str | None, which: DeliveryFilter, limit: int) -> list[Delivery]:
    """List deliveries, the one tried last first, of one tenant or of all."""
    parameters = {
        "tenant": tenant_id,
        "url": which.url,
        "event_type": which.event_type,
        "delivered": which.delivered,
        "error_class": which.error_class,
        "limit": limit,
    }
    return [
        Delivery(
            delivery_id=row[0],
            url=row[1],
            event_type=row[2],
            instance_id=row[3],
            attempts=row[4],
            delivered=row[5],
            first_attempted_at=row[6],
            last_attempted_at=row[7],
            last_status_code=row[8],
            last_error_class=row[9],
        )
        for row in tx.query(_DELIVERIES, parameters)
    ]


def _named(columns: str, row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip([name.strip() for name in columns.split(",")], row, strict=True))
