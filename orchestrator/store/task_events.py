"""What happened to one task of polling workers: claims, lost leases, late reports, its end (contract, api §13.7).

Most of it is known anyway: an open step knows its claim, the history of executions how each ended and who had claimed
it. Only what leaves no trace there has rows of its own, so a claim or a report writes nothing for this: leases that
were taken back, with the claim they ended, and reports that came too late.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from orchestrator.core.ids import moment_bits
from orchestrator.store.session import Transaction

MAX_REJECTED: Final = 1000
"""Late reports that are remembered of one task: a worker that repeats its own without end must not fill the disk."""
SILENT: Final = "no heartbeat"
_ENDINGS: Final = {
    "completed": "completed",
    "failed": "failed",
    "timed_out": "timed_out",
    "cancelled": "cancelled",
    "lost": "reclaimed",
}
_TIMED_OUT: Final = "task timed out (timeout_ms exceeded)"
_COLUMNS = "instance_id, id, step_id, event, claim_epoch, worker_name, claimed_at, reason, created_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """One thing that happened to a task.

    Args:
        event: `claimed`, `reclaimed`, `completed`, `failed`, `timed_out`, `cancelled` or `stale_mutation_rejected`.
        claim_epoch: Of the claim it is about, or which a late report named.
        worker: Who held that claim, or reported; None if nobody did.
        reason: The message of a failure, or what led to it; None if there is nothing to say.
    """

    id: UUID
    event: str
    claim_epoch: int
    worker: str | None
    reason: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHistory:
    """A task, open or ended, and what happened to it, the oldest first."""

    tenant_id: str
    handler: str | None
    events: tuple[TaskEvent, ...]


def of_task(tx: Transaction, step_id: UUID) -> TaskHistory | None:
    """Read what happened to a task; None if there is no trace of one of that id."""
    open_ones = tx.query(
        "SELECT tenant_id, handler, claim_epoch, worker_name, claimed_at FROM steps WHERE id = %s", (step_id,)
    )
    ended = tx.query(
        "SELECT i.tenant_id, a.handler, a.claim_epoch, a.worker_name, a.claimed_at, a.id, a.outcome, a.error, "
        "a.ended_at FROM attempts a JOIN instances i ON i.id = a.instance_id "
        "WHERE a.step_id = %s AND a.outcome <> 'cached'",
        (step_id,),
    )
    noted = tx.query(
        "SELECT i.tenant_id, NULL, e.claim_epoch, e.worker_name, e.claimed_at, e.id, e.event, e.reason, e.created_at "
        "FROM task_events e JOIN instances i ON i.id = e.instance_id WHERE e.step_id = %s",
        (step_id,),
    )
    rows = [*open_ones, *ended, *noted]
    if not rows:
        return None
    events = [_claim(step_id, *row[2:5]) for row in rows if row[4] is not None]
    events += [_ending(*row[2:4], *row[5:]) for row in ended]
    events += [_noted(*row[2:4], *row[5:]) for row in noted]
    events.sort(key=lambda each: (each.created_at, each.event != "claimed", each.id))
    return TaskHistory(tenant_id=rows[0][0], handler=rows[0][1], events=tuple(events))


def _claim(step_id: UUID, epoch: int, worker: str | None, claimed_at: datetime) -> TaskEvent:
    return TaskEvent(
        id=_id_of(claimed_at, step_id, "claimed", epoch),
        event="claimed",
        claim_epoch=epoch,
        worker=worker,
        reason=None,
        created_at=claimed_at,
    )


def _noted(
    epoch: int, worker: str | None, event_id: UUID, event: str, reason: str | None, created_at: datetime
) -> TaskEvent:
    return TaskEvent(id=event_id, event=event, claim_epoch=epoch, worker=worker, reason=reason, created_at=created_at)


def _ending(
    epoch: int, worker: str | None, attempt_id: UUID, outcome: str, error: dict[str, Any] | None, ended_at: datetime
) -> TaskEvent:
    said = (error or {}).get("message")
    return TaskEvent(
        id=attempt_id,
        event=_ENDINGS.get(outcome, outcome),
        claim_epoch=epoch,
        worker=worker,
        reason=said or (_TIMED_OUT if outcome == "timed_out" else None),
        created_at=ended_at,
    )


def _id_of(moment: datetime, step_id: UUID, event: str, epoch: int) -> UUID:
    """Make the id of an event from what it is: the same whenever it is asked for, and sorting by time as others do."""
    digest = hashlib.sha256(step_id.bytes + f"{event}:{epoch}".encode()).digest()
    return UUID(int=moment_bits(moment) | int.from_bytes(digest[:8]) >> 2)


def note_reclaimed(tx: Transaction, taken: Iterable[Sequence[Any]], now: datetime) -> None:
    """Note leases that were taken back from silent workers.

    Args:
        taken: Rows of instance_id, step_id, claim_epoch, worker_name, claimed_at, as they were.
    """
    rows = [
        (owner, _id_of(now, step_id, "reclaimed", epoch), step_id, "reclaimed", epoch, worker, claimed_at, SILENT, now)
        for owner, step_id, epoch, worker, claimed_at in taken
    ]
    if rows:
        tx.execute(f"INSERT INTO task_events ({_COLUMNS}) VALUES {tx.values('(' + '%s, ' * 8 + '%s)', rows)}")


def note_rejected(
    tx: Transaction, event_id: UUID, step_id: UUID, *, worker: str, epoch: int, reason: str, now: datetime
) -> None:
    """Note a report that came when its lease had ended; nothing if the task has left no trace, or too many of them.

    Args:
        reason: What the worker wanted to do.
        now: By the clock that stamps the ends of tasks too, so that the two are told in their order.
    """
    tx.execute(
        f"INSERT INTO task_events ({_COLUMNS}) SELECT owner.instance_id, %(id)s, %(step)s, 'stale_mutation_rejected', "
        "%(epoch)s, %(worker)s, NULL, %(reason)s, %(now)s FROM (SELECT instance_id FROM steps "
        "WHERE id = %(step)s UNION ALL SELECT instance_id FROM attempts WHERE step_id = %(step)s LIMIT 1) AS owner "
        "WHERE (SELECT count(*) FROM task_events WHERE step_id = %(step)s) < %(most)s",
        {
            "id": event_id,
            "step": step_id,
            "epoch": epoch,
            "worker": worker,
            "reason": reason,
            "now": now,
            "most": MAX_REJECTED,
        },
    )
