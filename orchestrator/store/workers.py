"""Worker processes: who is alive, what they serve."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.store.session import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A worker process as a member of the installation.

    Args:
        status: `active`, `draining`, or `stopped` when it has not been heard of for too long.
        drain: Whether it was asked to stop.
    """

    id: UUID
    name: str
    status: str
    registered_at: datetime
    last_heartbeat_at: datetime
    drain: bool
    queues: list[str]
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a worker process is told when it says that it lives.

    Args:
        is_draining: It was asked to take no more steps, and to stop.
    """

    is_draining: bool


def register(
    tx: Transaction,
    worker_id: UUID,
    *,
    name: str,
    kind: str,
    queues: Sequence[str],
    handlers: Sequence[str],
    slots: int,
) -> None:
    """Write the row of a worker process, or renew it. `kind` is `celery` or `http`."""
    tx.execute(
        "INSERT INTO workers (id, name, kind, queues, handlers, slots, started_at, heartbeat_at) "
        "VALUES (%s, %s, %s, %s, %s, %s, statement_timestamp(), statement_timestamp()) "
        "ON CONFLICT (id) DO UPDATE SET queues = EXCLUDED.queues, handlers = EXCLUDED.handlers, "
        "slots = EXCLUDED.slots, heartbeat_at = EXCLUDED.heartbeat_at",
        (worker_id, name, kind, list(queues), list(handlers), slots),
    )


def beat(tx: Transaction, worker_id: UUID) -> Beat | None:
    """Renew the heartbeat of a worker process; None if its row is gone (it was declared dead)."""
    rows = tx.query(
        "UPDATE workers SET heartbeat_at = clock_timestamp() WHERE id = %s RETURNING is_draining", (worker_id,)
    )
    return Beat(is_draining=rows[0][0]) if rows else None


def remove(tx: Transaction, worker_id: UUID) -> None:
    """Take a worker process off the list: it stops, or was found dead."""
    tx.execute("DELETE FROM workers WHERE id = %s", (worker_id,))


def remove_silent(tx: Transaction, silent_for: timedelta) -> int:
    """Remove rows of processes that have been silent for long and hold no claim; returns how many."""
    return tx.execute(
        "WITH silent AS MATERIALIZED (SELECT id FROM workers w WHERE heartbeat_at < clock_timestamp() - %s "
        "AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.worker_id = w.id AND s.state = 'claimed') "
        "ORDER BY id FOR UPDATE SKIP LOCKED) DELETE FROM workers w USING silent s WHERE w.id = s.id",
        (silent_for,),
    )


def alive(tx: Transaction, within: timedelta) -> list[dict[str, Any]]:
    """List worker processes that take hints and have sent a heartbeat within the given time."""
    rows = tx.query(
        "SELECT id, name, kind, queues, handlers, slots, started_at, heartbeat_at FROM workers "
        "WHERE kind = 'celery' AND heartbeat_at >= clock_timestamp() - %s ORDER BY name",
        (within,),
    )
    names = ("id", "name", "kind", "queues", "handlers", "slots", "started_at", "heartbeat_at")
    return [dict(zip(names, row, strict=True)) for row in rows]


_NODE = (
    "id, name, CASE WHEN heartbeat_at < clock_timestamp() - %(dead_after)s THEN 'stopped' WHEN is_draining "
    "THEN 'draining' ELSE 'active' END, started_at, heartbeat_at, is_draining, queues, slots"
)


def _node_of(row: Sequence[Any]) -> Node:
    names = ("id", "name", "status", "registered_at", "last_heartbeat_at", "drain", "queues", "slots")
    return Node(**dict(zip(names, row, strict=True)))


def nodes(tx: Transaction, dead_after: timedelta) -> list[Node]:
    """List the worker processes that have left a row, by name."""
    rows = tx.query(f"SELECT {_NODE} FROM workers WHERE kind = 'celery' ORDER BY name, id", {"dead_after": dead_after})
    return [_node_of(row) for row in rows]


def drain(tx: Transaction, worker_id: UUID, dead_after: timedelta) -> Node | None:
    """Ask a worker process to stop, which it does within a heartbeat or two; None if there is none."""
    rows = tx.query(
        f"UPDATE workers SET is_draining = true WHERE id = %(id)s AND kind = 'celery' RETURNING {_NODE}",
        {"id": worker_id, "dead_after": dead_after},
    )
    return _node_of(rows[0]) if rows else None
