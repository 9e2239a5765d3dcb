"""Worker processes and upkeep; the twin of `orchestrator.store.workers`, `installation` and `upkeep`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.routing import Routes
from orchestrator.core.states import StepState
from orchestrator.store.memory.base import Base
from orchestrator.store.memory.tables import WorkerRow
from orchestrator.store.upkeep import Leftovers
from orchestrator.store.workers import Beat


def register(
    tx: Base,
    worker_id: UUID,
    *,
    name: str,
    kind: str,
    queues: Sequence[str],
    handlers: Sequence[str],
    slots: int,
) -> None:
    """Write the row of a worker process, or renew it: name, kind and start stay as they were."""
    now = tx.now()
    known = tx.tables.workers.get(worker_id)
    first = {"id": worker_id, "name": name, "kind": kind, "started_at": now}
    columns = {
        **(first if known is None else known.columns),
        "queues": list(queues),
        "handlers": list(handlers),
        "slots": slots,
    }
    tx.journal.put(tx.tables.workers, worker_id, WorkerRow(columns=columns, heartbeat_at=now))


def beat(tx: Base, worker_id: UUID) -> Beat | None:
    """Renew the heartbeat of a worker process; None if its row is gone. None is asked to stop, as that needs SQL."""
    known = tx.tables.workers.get(worker_id)
    if known is None:
        return None
    tx.journal.put(tx.tables.workers, worker_id, WorkerRow(columns=known.columns, heartbeat_at=tx.now()))
    return Beat(is_draining=False)


def remove(tx: Base, worker_id: UUID) -> None:
    """Take a worker process off the list."""
    tx.journal.drop(tx.tables.workers, worker_id)


def remove_silent(tx: Base, silent_for: timedelta) -> int:
    """Remove rows of processes that have been silent for long and hold no claim; returns how many."""
    heard_after = tx.now() - silent_for
    steps = [row.step for rows in tx.tables.instances.values() for row in rows.steps.values()]
    busy = {step.worker_id for step in steps if step.state is StepState.CLAIMED}
    silent = [i for i, row in tx.tables.workers.items() if row.heartbeat_at < heard_after and i not in busy]
    for worker_id in silent:
        tx.journal.drop(tx.tables.workers, worker_id)
    return len(silent)


def alive(tx: Base, within: timedelta) -> list[dict[str, Any]]:
    """List worker processes that take hints and have sent a heartbeat within the given time, by name."""
    heard_after = tx.now() - within
    found = [
        {**row.columns, "heartbeat_at": row.heartbeat_at}
        for row in tx.tables.workers.values()
        if row.columns["kind"] == "celery" and row.heartbeat_at >= heard_after
    ]
    return sorted(found, key=lambda columns: columns["name"])


def read_fact(tx: Base, name: str) -> str | None:
    """Read one fact of the installation; None if it was never written."""
    return tx.tables.facts.get(name)


def handlers_and_routes(tx: Base, within: timedelta) -> tuple[frozenset[str], Routes]:
    """Read which handlers living worker processes know; there are no rules, as there is nobody to make them."""
    return frozenset(name for row in alive(tx, within) for name in row["handlers"]), {}


def write_fact(tx: Base, name: str, value: str) -> None:
    """Write one fact of the installation."""
    tx.journal.put(tx.tables.facts, name, value)


def write_moment(tx: Base, name: str) -> None:
    """Write the time as a fact of the installation."""
    write_fact(tx, name, tx.now().isoformat())


def leftovers(tx: Base) -> Leftovers:
    """Tell what there is that a crash may have left behind; sequences in memory are not deleted."""
    steps = (row.step for rows in tx.tables.instances.values() for row in rows.steps.values())
    return Leftovers(claims=any(step.state is StepState.CLAIMED for step in steps), of_deleted=False)


def remove_of_deleted(tx: Base) -> int:
    """Remove nothing: sequences in memory are not deleted."""
    return 0


def make_partitions(tx: Base) -> int:
    """Make none: rows in memory are not partitioned."""
    return 0


def forget_nonces(tx: Base, limit: int) -> int:
    """Forget none: nothing in memory is signed."""
    return 0
