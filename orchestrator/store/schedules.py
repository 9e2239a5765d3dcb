"""Cron schedules: what is started when, and which of the flows they have started go on (contract, api §14).

A schedule's row is locked before instances are inserted and before the row of its sequence, and counters after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from orchestrator.store.session import Transaction, to_json


class OverlapPolicy(StrEnum):
    """What a schedule does when it is due and a flow that it has started before goes on."""

    ALLOW = "allow"
    SKIP = "skip"
    BUFFER_ONE = "buffer_one"
    CANCEL_PREVIOUS = "cancel_previous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule.

    Args:
        metadata: Of the instances it starts.
        skipped_fires: How often it was due and has started nothing.
        next_fire_at: The next moment its expression names; while it is disabled, when it would have been due.
    """

    id: UUID
    tenant_id: str
    namespace: str
    sequence_id: UUID
    cron_expr: str
    timezone: str = "UTC"
    enabled: bool = True
    metadata: Any = None
    overlap_policy: OverlapPolicy = OverlapPolicy.ALLOW
    skipped_fires: int = 0
    last_skipped_at: datetime | None = None
    last_triggered_at: datetime | None = None
    next_fire_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


_NAMES: Final = tuple(Schedule.__dataclass_fields__)
_COLUMNS: Final = ", ".join(_NAMES)


def _schedule_of(row: Sequence[Any]) -> Schedule:
    values = dict(zip(_NAMES, row, strict=True))
    return Schedule(**{**values, "overlap_policy": OverlapPolicy(values["overlap_policy"])})


def insert(tx: Transaction, s: Schedule) -> None:
    """Store a new schedule."""
    written = {name: getattr(s, name) for name in _NAMES}
    written |= {"metadata": to_json(s.metadata), "due_at": s.next_fire_at if s.enabled else None}
    names = ", ".join(written)
    tx.execute(f"INSERT INTO schedules ({names}) VALUES ({', '.join(['%s'] * len(written))})", tuple(written.values()))


def get(tx: Transaction, schedule_id: UUID, tenant_id: str | None = None, *, lock: bool = False) -> Schedule | None:
    """Read a schedule; None if there is none, or it belongs to another tenant than the one given."""
    rows = tx.query(f"SELECT {_COLUMNS} FROM schedules WHERE id = %s" + (" FOR UPDATE" if lock else ""), (schedule_id,))
    if not rows:
        return None
    found = _schedule_of(rows[0])
    return found if tenant_id in {None, found.tenant_id} else None


def find(tx: Transaction, tenant_id: str | None, limit: int) -> list[Schedule]:
    """List schedules, the oldest first, of one tenant or of all."""
    mine = "" if tenant_id is None else "WHERE tenant_id = %(tenant)s"
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM schedules {mine} ORDER BY id LIMIT %(limit)s", {"tenant": tenant_id, "limit": limit}
    )
    return [_schedule_of(row) for row in rows]


def update(tx: Transaction, s: Schedule, *, is_moved: bool) -> None:
    """Write what clients may change of a schedule, and when it fires next.

    Args:
        is_moved: Whether that is another moment than before.
    """
    tx.execute(
        "UPDATE schedules SET cron_expr = %s, timezone = %s, enabled = %s, metadata = %s, overlap_policy = %s, "
        "next_fire_at = %s, updated_at = clock_timestamp() WHERE id = %s",
        (s.cron_expr, s.timezone, s.enabled, to_json(s.metadata), s.overlap_policy, s.next_fire_at, s.id),
    )
    if is_moved:
        tx.execute("UPDATE schedules SET due_at = CASE WHEN enabled THEN next_fire_at END WHERE id = %s", (s.id,))


def delete(tx: Transaction, schedule_id: UUID) -> None:
    """Remove a schedule; flows that it has started go on."""
    tx.execute("DELETE FROM schedules WHERE id = %s", (schedule_id,))
    tx.execute("DELETE FROM schedule_runs WHERE schedule_id = %s", (schedule_id,))


def delete_of_sequence(tx: Transaction, sequence_id: UUID) -> None:
    """Remove the schedules of a version."""
    gone = tx.query("DELETE FROM schedules WHERE sequence_id = %s RETURNING id", (sequence_id,))
    tx.execute("DELETE FROM schedule_runs WHERE schedule_id = ANY(%s::uuid[])", ([row[0] for row in gone],))


def due(tx: Transaction, limit: int) -> list[Schedule]:
    """List schedules that are due and in nobody's hands, those that have waited longest first."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM schedules WHERE due_at <= statement_timestamp() ORDER BY due_at LIMIT %s "
        "FOR UPDATE SKIP LOCKED",
        (limit,),
    )
    return [_schedule_of(row) for row in rows]


def next_due(tx: Transaction) -> timedelta | None:
    """Say how long until the next schedule is due; None if none ever is."""
    rows = tx.query("SELECT min(due_at) - clock_timestamp() FROM schedules WHERE due_at IS NOT NULL")
    return rows[0][0] if rows else None


def take_due(tx: Transaction, schedule_id: UUID) -> Schedule | None:
    """Lock a schedule that is due; None if another process has it in its hands, or it is no longer due."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM schedules WHERE id = %s AND due_at <= clock_timestamp() FOR UPDATE SKIP LOCKED",
        (schedule_id,),
    )
    return _schedule_of(rows[0]) if rows else None


def mark_fired(tx: Transaction, schedule_id: UUID, next_fire_at: datetime | None) -> None:
    """Note that a schedule has started a flow, and when it is due again."""
    tx.execute(
        "UPDATE schedules SET last_triggered_at = clock_timestamp(), next_fire_at = %(next)s, due_at = %(next)s "
        "WHERE id = %(id)s",
        {"next": next_fire_at, "id": schedule_id},
    )


def mark_skipped(tx: Transaction, schedule_id: UUID, next_fire_at: datetime | None) -> None:
    """Note that a schedule was due and has started nothing, and when it is due again."""
    tx.execute(
        "UPDATE schedules SET last_skipped_at = clock_timestamp(), skipped_fires = skipped_fires + 1, "
        "next_fire_at = %(next)s, due_at = %(next)s WHERE id = %(id)s",
        {"next": next_fire_at, "id": schedule_id},
    )


def postpone(tx: Transaction, schedule_id: UUID, by: timedelta) -> None:
    """Look at a due schedule again later; the moment it fires for stays."""
    tx.execute(
        "UPDATE schedules SET due_at = clock_timestamp() + %s WHERE id = %s AND due_at <= clock_timestamp()",
        (by, schedule_id),
    )


def insert_run(tx: Transaction, schedule_id: UUID, instance_id: UUID, fire_time: datetime) -> None:
    """Remember which flow a schedule has started."""
    tx.execute(
        "INSERT INTO schedule_runs (schedule_id, instance_id, fire_time) VALUES (%s, %s, %s)",
        (schedule_id, instance_id, fire_time),
    )


def forget_ended_runs(tx: Transaction, schedule_id: UUID) -> None:
    """Forget the flows of a schedule that have ended, so that only few are remembered."""
    tx.execute(
        "DELETE FROM schedule_runs r USING instances i "
        "WHERE r.schedule_id = %s AND i.id = r.instance_id AND i.settled_at IS NOT NULL",
        (schedule_id,),
    )


def open_runs(tx: Transaction, schedule_id: UUID, before: datetime | None = None) -> list[UUID]:
    """List the flows of a schedule that have not ended, of those fired for a moment before another one."""
    rows = tx.query(
        "SELECT r.instance_id FROM schedule_runs r JOIN instances i ON i.id = r.instance_id "
        "WHERE r.schedule_id = %(id)s AND i.settled_at IS NULL "
        "AND (%(before)s::timestamptz IS NULL OR r.fire_time < %(before)s) ORDER BY 1",
        {"id": schedule_id, "before": before},
    )
    return [row[0] for row in rows]
