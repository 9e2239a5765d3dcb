"""Steps as the tasks of workers that poll over HTTP: what dashboards show, and who polls.

Open tasks are rows of `steps`, ended ones rows of `attempts`. The history is looked at one week back: its partitions
are weeks, and a dashboard must not read them all.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from orchestrator.store import payloads
from orchestrator.store.session import Transaction
from sequences.handlers import BUILTIN_HANDLERS

_EXTERNAL = "{0}.handler <> ALL(%(builtin)s) AND {0}.handler !~ '^[a-z]+://'"
_OPEN_STATE = "CASE s.state WHEN 'ready' THEN 'pending' ELSE 'claimed' END"
_ENDED_STATE = "CASE a.outcome WHEN 'completed' THEN 'completed' ELSE 'failed' END"
_POLLERS = UUID("6f1c2f0a-54c5-4f0e-9d0f-7a0c0f6f2b11")
_RECENT = "a.ended_at > statement_timestamp() - interval '7 days' AND a.outcome <> 'cached'"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks a list shows; None means any."""

    tenant_id: str | None = None
    handler: str | None = None
    worker: str | None = None
    queue: str | None = None
    state: str | None = None


class EndedKey(NamedTuple):
    """Which row of the history the end of a task is."""

    instance_id: UUID
    ended_at: datetime
    id: UUID
    step_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTask:
    """What is known of a task that is no longer open.

    Args:
        outcome: `completed`, `failed`, `timed_out`, `lost` or `cancelled`.
        is_stopped: Whether its instance has ended or is held by a pause.
    """

    tenant_id: str
    outcome: str
    is_stopped: bool


def _parameters(which: TaskFilter, limit: int) -> dict[str, Any]:
    return {**asdict(which), "limit": limit, "builtin": sorted(BUILTIN_HANDLERS)}


def ended(tx: Transaction, step_id: UUID) -> EndedTask | None:
    """Look for a task in the history; None if no attempt of that id has ended."""
    rows = tx.query(
        "SELECT i.tenant_id, a.outcome, i.is_held OR i.state IN ('paused', 'completed', 'failed', 'cancelled') "
        "FROM attempts a JOIN instances i ON i.id = a.instance_id WHERE a.step_id = %s "
        "ORDER BY a.ended_at DESC LIMIT 1",
        (step_id,),
    )
    return EndedTask(tenant_id=rows[0][0], outcome=rows[0][1], is_stopped=rows[0][2]) if rows else None


def open_keys(tx: Transaction, which: TaskFilter, limit: int) -> list[tuple[UUID, datetime]]:
    """Find open tasks, the newest first: their ids, and when they were made."""
    rows = tx.query(
        "SELECT s.id, coalesce(s.ready_at, s.entered_at) FROM steps s "
        f"WHERE s.state IN ('ready', 'claimed') AND {_EXTERNAL.format('s')} "
        "AND (%(tenant_id)s IS NULL OR s.tenant_id = %(tenant_id)s) "
        "AND (%(handler)s IS NULL OR s.handler = %(handler)s) "
        "AND (%(worker)s IS NULL OR s.worker_name = %(worker)s) "
        "AND (%(queue)s IS NULL OR (s.is_queue_named AND s.queue = %(queue)s)) "
        f"AND (%(state)s IS NULL OR {_OPEN_STATE} = %(state)s) ORDER BY s.ready_at DESC, s.id DESC LIMIT %(limit)s",
        _parameters(which, limit),
    )
    return [(row[0], row[1]) for row in rows]


def recently_ended(tx: Transaction, which: TaskFilter, limit: int) -> list[EndedKey]:
    """Find tasks that ended in the last week, the newest first: their ids begin with the time they were made at."""
    rows = tx.query(
        "SELECT a.instance_id, a.ended_at, a.id, a.step_id FROM attempts a JOIN instances i ON i.id = a.instance_id "
        f"WHERE {_RECENT} AND {_EXTERNAL.format('a')} AND (%(tenant_id)s IS NULL OR i.tenant_id = %(tenant_id)s) "
        "AND (%(handler)s IS NULL OR a.handler = %(handler)s) AND (%(queue)s IS NULL OR a.queue = %(queue)s) "
        "AND (%(worker)s IS NULL OR a.worker_name = %(worker)s) "
        f"AND (%(state)s IS NULL OR {_ENDED_STATE} = %(state)s) ORDER BY a.step_id DESC, a.id DESC LIMIT %(limit)s",
        _parameters(which, limit),
    )
    return [EndedKey(*row) for row in rows]


def read_ended(tx: Transaction, keys: Sequence[EndedKey]) -> list[tuple[Any, ...]]:
    """Read tasks that have ended, in any order.

    Returns:
        Rows of step_id, instance_id, block_id, iteration, handler, queue, attempt, state, outcome, worker_name,
        claim_epoch, claimed_at, ended_at, error, output.
    """
    if not keys:
        return []
    wanted = tx.values("(%s::uuid, %s::timestamptz, %s::uuid)", [key[:3] for key in keys])
    rows = tx.query(
        "SELECT a.step_id, a.instance_id, a.block_id, a.iteration, a.handler, a.queue, a.attempt, "
        f"{_ENDED_STATE}, a.outcome, a.worker_name, a.claim_epoch, a.claimed_at, a.ended_at, a.error, o.output "
        f"FROM (VALUES {wanted}) AS w (instance_id, ended_at, id) JOIN attempts a ON a.instance_id = w.instance_id "
        "AND a.ended_at = w.ended_at AND a.id = w.id "
        "LEFT JOIN LATERAL (SELECT output FROM outputs WHERE instance_id = a.instance_id AND block_id = a.block_id "
        "AND iteration = a.iteration AND a.outcome = 'completed' ORDER BY id LIMIT 1) AS o ON true"
    )
    whole = payloads.whole_outputs(tx, [(row[1], row[-1]) for row in rows])
    return [(*row[:-1], output) for row, output in zip(rows, whole, strict=True)]


def counts(tx: Transaction, tenant_id: str | None) -> list[tuple[str, str, int]]:
    """Count tasks by handler and state: those open, and those that ended in the last week."""
    rows = tx.query(
        f"SELECT s.handler, {_OPEN_STATE}, count(*) FROM steps s WHERE s.state IN ('ready', 'claimed') "
        f"AND {_EXTERNAL.format('s')} AND (%(tenant_id)s IS NULL OR s.tenant_id = %(tenant_id)s) GROUP BY 1, 2 "
        f"UNION ALL SELECT a.handler, {_ENDED_STATE}, count(*) FROM attempts a "
        "JOIN instances i ON i.id = a.instance_id "
        f"WHERE {_RECENT} AND {_EXTERNAL.format('a')} AND (%(tenant_id)s IS NULL OR i.tenant_id = %(tenant_id)s) "
        "GROUP BY 1, 2",
        _parameters(TaskFilter(tenant_id=tenant_id), 0),
    )
    return [(row[0], row[1], row[2]) for row in rows]


def claimers(tx: Transaction, tenant_id: str | None) -> list[str]:
    """Name the workers that hold claims of external tasks."""
    rows = tx.query(
        f"SELECT DISTINCT s.worker_name FROM steps s WHERE s.state = 'claimed' AND {_EXTERNAL.format('s')} "
        "AND s.worker_name IS NOT NULL AND (%(tenant_id)s IS NULL OR s.tenant_id = %(tenant_id)s) ORDER BY 1",
        _parameters(TaskFilter(tenant_id=tenant_id), 0),
    )
    return [row[0] for row in rows]


def named_queues(tx: Transaction, handler: str, tenant_id: str | None) -> list[str]:
    """Name the queues on which tasks of a handler can be claimed."""
    rows = tx.query(
        "SELECT DISTINCT queue FROM steps WHERE state = 'ready' AND is_queue_named AND handler = %s "
        "AND (%s IS NULL OR tenant_id = %s) ORDER BY 1",
        (handler, tenant_id, tenant_id),
    )
    return [row[0] for row in rows]


def worker_key(tenant: str | None, name: str) -> UUID:
    """Name the row of a polling worker: the same name in two tenants is two workers."""
    return uuid5(_POLLERS, f"{tenant or ''}\n{name}")


def note_poller(
    tx: Transaction,
    key: UUID,
    *,
    tenant: str | None,
    name: str,
    queues: Sequence[str],
    handlers: Sequence[str],
    version: str | None = None,
) -> None:
    """Let be written that a worker has polled; what it polls for is added to what it polled for before.

    Args:
        tenant: Whose tasks it polls for; None for those of all.
    """
    tx.later(
        "INSERT INTO workers (id, name, kind, queues, handlers, slots, started_at, heartbeat_at, version, tenant_id) "
        "VALUES (%s, %s, 'http', %s, %s, 0, statement_timestamp(), statement_timestamp(), %s, %s) "
        "ON CONFLICT (id) DO UPDATE SET tenant_id = EXCLUDED.tenant_id, "
        "queues = ARRAY(SELECT DISTINCT unnest(workers.queues || EXCLUDED.queues) ORDER BY 1), "
        "handlers = ARRAY(SELECT DISTINCT unnest(workers.handlers || EXCLUDED.handlers) ORDER BY 1), "
        "heartbeat_at = EXCLUDED.heartbeat_at, version = EXCLUDED.version",
        (key, name, list(queues), list(handlers), version, tenant),
    )


def heard_of(
    tx: Transaction, alive_within: timedelta, tenant_id: str | None
) -> list[tuple[UUID, str, str, list[str], list[str], datetime, bool, int, str | None]]:
    """List all workers that have left a row.

    Args:
        tenant_id: Whose claims are counted; None for those of all.

    Returns:
        Rows of id, name, kind, handlers, queues, heartbeat_at, whether that is recent, number of claims, version.
    """
    rows = tx.query(
        "SELECT w.id, w.name, w.kind, w.handlers, w.queues, w.heartbeat_at, w.heartbeat_at >= clock_timestamp() - %s, "
        "(SELECT count(*) FROM steps s WHERE s.state = 'claimed' AND "
        "CASE WHEN w.kind = 'http' THEN s.worker_id IS NULL AND s.worker_name = w.name ELSE s.worker_id = w.id END "
        "AND (%s::text IS NULL OR s.tenant_id = %s)), "
        "w.version FROM workers w ORDER BY w.name, w.id",
        (alive_within, tenant_id, tenant_id),
    )
    return [tuple(row) for row in rows]
