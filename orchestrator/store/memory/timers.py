"""Timers whose moment has come; the twin of `orchestrator.store.timers`."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from orchestrator.store.memory.base import Base
from orchestrator.store.timers import Due
from sequences.durations import after


def _timers(tx: Base) -> Iterator[Due]:
    for owner, rows in tx.tables.instances.items():
        for key, due_at in rows.timers.items():
            yield Due(instance_id=owner, key=key, due_at=due_at)


def due(tx: Base, limit: int) -> list[Due]:
    """List timers whose moment has come, the oldest first."""
    now = tx.now()
    due = [timer for timer in _timers(tx) if timer.due_at <= now]
    return sorted(due, key=lambda timer: (timer.due_at, timer.instance_id, timer.key))[:limit]


def next_due(tx: Base) -> timedelta | None:
    """Say how long until the next timer is due; None if there is none."""
    first = min((timer.due_at for timer in _timers(tx)), default=None)
    return None if first is None else first - tx.now()


def drop(tx: Base, timers: Sequence[Due]) -> None:
    """Remove timers that no longer mean anything, unless they were set anew since they were seen."""
    for due in timers:
        rows = tx.tables.instances.get(due.instance_id)
        if rows is not None and rows.timers.get(due.key) == due.due_at:
            tx.journal.drop(rows.timers, due.key)


def postpone(tx: Base, due: Due, by: timedelta) -> None:
    """Look at a timer again later, unless it was set anew since it was seen."""
    rows = tx.tables.instances.get(due.instance_id)
    if rows is not None and rows.timers.get(due.key) == due.due_at:
        tx.journal.put(rows.timers, due.key, after(tx.now(), by))
