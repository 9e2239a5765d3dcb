"""Queues as operators see them: what waits on each, and who serves it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.store.session import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRecord:
    """The open steps of a queue, and the living workers that serve it."""

    queue: str
    states: dict[str, int]
    oldest_ready_at: datetime | None
    workers: int
    slots: int


def overview(tx: Transaction, tenant_id: str | None, alive_within: timedelta) -> list[QueueRecord]:
    """List the queues that have open steps of a tenant (None: of all) or living workers, by name.

    Reads every open step: for people and dashboards, not for loops.
    """
    states: dict[str, dict[str, int]] = {}
    oldest: dict[str, datetime] = {}
    counted = (
        "SELECT queue, state, count(*), min(ready_at) FROM steps WHERE %s::text IS NULL OR tenant_id = %s "
        "GROUP BY queue, state ORDER BY queue, state"
    )
    for queue, state, count, ready_at in tx.query(counted, (tenant_id, tenant_id)):
        states.setdefault(queue, {})[state] = count
        if state == "ready" and ready_at is not None:
            oldest[queue] = ready_at
    serving = (
        "SELECT queue, count(*), sum(slots) FROM workers, unnest(queues) AS queue "
        "WHERE kind = 'celery' AND heartbeat_at >= clock_timestamp() - %s GROUP BY queue"
    )
    served = {queue: (count, int(slots)) for queue, count, slots in tx.query(serving, (alive_within,))}
    return [
        QueueRecord(
            queue=name,
            states=states.get(name, {}),
            oldest_ready_at=oldest.get(name),
            workers=served.get(name, (0, 0))[0],
            slots=served.get(name, (0, 0))[1],
        )
        for name in sorted(states.keys() | served.keys())
    ]
