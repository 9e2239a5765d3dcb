"""Hints, as the dispatcher counts them; the twin of `orchestrator.store.hints`."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from orchestrator.core.states import StepState
from orchestrator.store.hints import Head
from orchestrator.store.memory.base import Base
from orchestrator.store.memory.tables import StepRow


def heads(tx: Base, handlers: Sequence[str], again_after: timedelta, limit: int) -> list[Head]:
    """List ready steps of known handlers that have no hint out, or whose hint is older than `again_after`."""
    known, hinted_before = frozenset(handlers), tx.now() - again_after
    waiting: dict[str, list[StepRow]] = defaultdict(list)
    for _, row in tx.tables.steps_in(StepState.READY):
        hinted_at = row.step.hinted_at
        if row.step.handler in known and (hinted_at is None or hinted_at < hinted_before):
            waiting[row.step.queue].append(row)
    return [head for rows in waiting.values() for head in _first(rows, limit)]


def _first(rows: list[StepRow], limit: int) -> list[Head]:
    rows.sort(key=lambda row: (-row.step.priority, row.step.ready_at or row.step.entered_at))
    return [
        Head(
            step_id=row.step.id,
            queue=row.step.queue,
            handler=row.step.handler,
            tenant_id=row.step.tenant_id,
            priority=row.step.priority,
            attempt=row.step.attempt,
            hints=row.hints,
        )
        for row in rows[:limit]
    ]


def has_ready(tx: Base) -> bool:
    """Tell whether any step is ready, hinted or not."""
    return any(True for _ in tx.tables.steps_in(StepState.READY))


def outstanding(tx: Base, fresh_for: timedelta) -> dict[str, int]:
    """Count, for each queue, the hints that are out and have not been answered by a claim."""
    hinted_after = tx.now() - fresh_for
    out = [row.step for _, row in tx.tables.steps_in(StepState.READY)]
    return dict(Counter(step.queue for step in out if step.hinted_at is not None and step.hinted_at >= hinted_after))


def mark(tx: Base, step_ids: Sequence[UUID]) -> None:
    """Note that a hint for these steps is on its way."""
    wanted, now = frozenset(step_ids), tx.now()
    for owner, row in [found for found in tx.tables.steps_in(StepState.READY) if found[1].step.id in wanted]:
        marked = replace(row, step=replace(row.step, hinted_at=now), hints=row.hints + 1)
        tx.journal.put(tx.tables.instances[owner].steps, row.step.key, marked)


def forget(tx: Base) -> int:
    """Forget all hints: the broker has lost them. Returns how many ready steps will be hinted anew."""
    hinted = [(owner, row) for owner, row in tx.tables.steps_in(StepState.READY) if row.step.hinted_at is not None]
    for owner, row in hinted:
        tx.journal.put(
            tx.tables.instances[owner].steps, row.step.key, replace(row, step=replace(row.step, hinted_at=None))
        )
    return len(hinted)
