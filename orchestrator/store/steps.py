"""Open steps: claiming them, and the marks that keep a claim alive.

These writes do not take the instance's lock: a claim changes nothing that the core decides on. They touch only rows in
the state they expect, skip rows that others hold, and so never wait.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.changes import ContextPut
from orchestrator.core.model import Claim, Instance, NodeKey, Step
from orchestrator.core.routing import Routes
from orchestrator.store import payloads, task_events
from orchestrator.store.prepared import array_of, form
from orchestrator.store.rows import (
    INSTANCE_COLUMNS,
    INSTANCE_WIDTH,
    STEP_COLUMNS,
    STEP_WIDTH,
    claim_of,
    context_of,
    instance_of,
    step_of,
)
from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction
from orchestrator.store.worker_orders import HANDLERS, ROUTES, routes_of

_STEP = ", ".join(f"s.{name.strip()}" for name in STEP_COLUMNS.split(","))

# MATERIALIZED: as the inner side of a join, a sub-select is run anew for each row, and each time gives other free rows,
# so that more are claimed than its limit says.
_CLAIM = f"""
WITH free AS MATERIALIZED ({{}})
UPDATE steps s
SET state = 'claimed', token = gen_random_uuid(), worker_id = %(worker_id)s, worker_name = %(worker_name)s,
    slot = %(slot)s, claimed_at = clock_timestamp(), heartbeat_at = clock_timestamp(), claim_epoch = s.claim_epoch + 1,
    expires_at = LEAST(COALESCE(s.expires_at, clock_timestamp() + s.timeout), s.deadline_at + interval '1 second')
FROM free
WHERE s.id = free.id
RETURNING s.instance_id, {_STEP}
"""
_FREE_STEP = """
SELECT id FROM steps WHERE id = %(step_id)s AND state = 'ready' AND handler = ANY(%(handlers)s)
FOR UPDATE SKIP LOCKED
"""
# Kept by the server, so of a text that suits any number of steps, and without a join, whose plan depends on it.
# What was claimed is noted for the statement behind it, which sees what was committed until then: the instance as it is
# with the step in it. A look in this statement would be at the moment before it.
# A plan that was made while the table was empty must not look for the hinted step among all that are ready: it is not
# said to be one of them in the terms of their index.
# The look for something more urgent is not `NOT EXISTS`: that may become a join, which reads all ready steps.
_CLAIM_READY = form(
    "claim_ready",
    ["uuid", "text", "text[]", "text[]", "int", "uuid", "text", "int"],
    """
WITH named AS MATERIALIZED (
    SELECT id, handler FROM steps
    WHERE id = $1 AND state || '' = 'ready' AND handler = ANY($3)
      AND (SELECT 1 FROM steps u WHERE u.state = 'ready' AND u.queue = steps.queue AND u.priority > steps.priority
           AND u.handler = ANY($3) LIMIT 1) IS NULL
    FOR UPDATE SKIP LOCKED),
head AS MATERIALIZED (
    SELECT id, handler FROM steps
    WHERE state = 'ready' AND queue = $2 AND handler = ANY($3) AND NOT EXISTS (SELECT 1 FROM named)
    ORDER BY priority DESC, ready_at LIMIT 1 FOR UPDATE SKIP LOCKED),
first AS MATERIALIZED (SELECT id, handler FROM named UNION ALL SELECT id, handler FROM head),
more AS MATERIALIZED (
    SELECT id FROM steps
    WHERE state = 'ready' AND queue = $2 AND handler = ANY($4)
      AND (SELECT handler FROM first) = ANY($4) AND id <> (SELECT id FROM first)
    ORDER BY priority DESC, ready_at LIMIT $5 - 1 FOR UPDATE SKIP LOCKED),
claimed AS (
    UPDATE steps s
    SET state = 'claimed', token = gen_random_uuid(), worker_id = $6, worker_name = $7, slot = $8,
        claimed_at = clock_timestamp(), heartbeat_at = clock_timestamp(), claim_epoch = s.claim_epoch + 1,
        expires_at = LEAST(COALESCE(s.expires_at, clock_timestamp() + s.timeout), s.deadline_at + interval '1 second')
    WHERE s.id = ANY(ARRAY(SELECT id FROM first UNION ALL SELECT id FROM more))
    RETURNING s.id)
SELECT set_config('orchestrator.claimed', coalesce((SELECT array_agg(id) FROM claimed)::text, '{}'), true)
""",
)
_OF_INSTANCE = slice(1 + STEP_WIDTH, 1 + STEP_WIDTH + INSTANCE_WIDTH)
_OF_CONTEXT = slice(_OF_INSTANCE.stop, _OF_INSTANCE.stop + 4)
_INSTANCE = ", ".join(f"i.{name}" for name in INSTANCE_COLUMNS.split(", "))
# OFFSET 0: a join whose plan is kept goes from each step to its instance, whatever the tables were when it was made.
_CLAIMED = form(
    "claimed",
    ["text[]", "interval"],
    f"""
WITH s AS MATERIALIZED (
    SELECT *, row_number() OVER () = 1 AS is_first,
        row_number() OVER own AS place, bool_or(handler = ANY($1)) OVER own AS reads
    FROM (SELECT * FROM steps WHERE id = ANY(current_setting('orchestrator.claimed', true)::uuid[]) OFFSET 0) AS found
    WINDOW own AS (PARTITION BY instance_id))
SELECT s.instance_id, {_STEP}, {_INSTANCE}, c.instance_id, c.data, c.config, c.audit,
    CASE WHEN is_first AND $2 IS NOT NULL THEN {HANDLERS.format("$2")} END,
    CASE WHEN is_first AND $2 IS NOT NULL THEN {ROUTES} END
FROM s
LEFT JOIN LATERAL (SELECT * FROM instances WHERE id = s.instance_id AND s.place = 1 OFFSET 0) AS i ON true
LEFT JOIN LATERAL (SELECT * FROM contexts WHERE instance_id = i.id AND s.reads OFFSET 0) AS c ON true
""",
)
# One priority after the other: the index gives the tasks of each in order, while to order those of all, the whole
# backlog of the queue would be read at each poll. What is locked beyond the limit is let go with the commit. The server
# keeps it, so it does not join, as above.
_CLAIM_TASKS = form(
    "claim_tasks",
    ["text", "bool", "text", "text", "bigint[]", "text[]"],
    f"""
WITH RECURSIVE known (priority) AS (
  (SELECT priority FROM steps WHERE state = 'ready' AND queue = $1 ORDER BY priority DESC LIMIT 1)
  UNION ALL
  SELECT (SELECT s.priority FROM steps s WHERE s.state = 'ready' AND s.queue = $1
          AND s.priority < known.priority ORDER BY s.priority DESC LIMIT 1)
  FROM known WHERE known.priority IS NOT NULL
),
free AS MATERIALIZED (
  SELECT f.id, f.ready_at FROM known CROSS JOIN LATERAL (
    SELECT s.id, s.ready_at FROM steps s
    WHERE s.state = 'ready' AND s.queue = $1 AND s.priority = known.priority
      AND s.is_queue_named = $2 AND s.handler = $3 AND ($4 IS NULL OR s.tenant_id = $4)
      AND NOT EXISTS (SELECT 1 FROM version_pins v WHERE v.tenant_id = s.tenant_id AND v.handler_name = s.handler
                      AND ($5 IS NULL OR v.rank > $5))
    ORDER BY s.ready_at, s.id LIMIT cardinality($6) FOR UPDATE OF s SKIP LOCKED
  ) AS f ORDER BY f.ready_at, f.id LIMIT cardinality($6)
)
UPDATE steps s
SET state = 'claimed', token = gen_random_uuid(), worker_id = NULL, slot = NULL,
    worker_name = ($6)[array_position(ARRAY(SELECT id FROM free ORDER BY ready_at, id), s.id)],
    claimed_at = clock_timestamp(), heartbeat_at = clock_timestamp(), claim_epoch = s.claim_epoch + 1,
    expires_at = LEAST(COALESCE(s.expires_at, clock_timestamp() + s.timeout), s.deadline_at + interval '1 second')
WHERE s.id = ANY(ARRAY(SELECT id FROM free))
RETURNING s.instance_id, s.heartbeat_at, s.checkpoint, s.checkpoint_seq, {_STEP}
""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Who claims: a worker process, and the child (by pid) that will run the step."""

    id: UUID | None
    name: str
    slot: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Steps that were claimed, and what their inputs are made of.

    Args:
        steps: Each with the instance it belongs to.
        instances: As they are with these steps claimed.
        contexts: With the audit section; of instances whose handlers read them, if no part of them is stored apart.
        known: The handlers of living workers, and the routes, if they were asked for and something was claimed.
    """

    steps: list[tuple[UUID, Step]]
    instances: dict[UUID, Instance]
    contexts: dict[UUID, tuple[ContextPut, Any]]
    known: tuple[frozenset[str], Routes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTask:
    """A claimed step with the marks of the worker protocol."""

    instance_id: UUID
    step: Step
    heartbeat_at: datetime | None
    checkpoint: Any
    checkpoint_seq: int

    @property
    def claim(self) -> Claim:
        """The claim it stands for."""
        return claim_of(self.instance_id, self.step)


def _claimed(rows: Sequence[Sequence[Any]]) -> list[Claim]:
    return [claim_of(row[0], step_of(row[1:])) for row in rows]


def claim_one(tx: Transaction, step_id: UUID, handlers: Sequence[str], worker: Worker) -> Claim | None:
    """Claim a certain step; None if it is no longer ready, or its handler is not among those: a normal ending."""
    parameters = {**_worker(worker), "step_id": step_id, "handlers": list(handlers)}
    claims = _claimed(tx.query(_CLAIM.format(_FREE_STEP), parameters))
    return claims[0] if claims else None


def claim_ready(
    tx: Transaction,
    queue: str,
    handlers: Sequence[str],
    worker: Worker,
    *,
    step_id: UUID | None = None,
    together: Collection[str] = (),
    readers: Collection[str] = (),
    limit: int = 1,
    alive_within: timedelta | None = None,
) -> Taken:
    """Claim ready steps of a queue and some handlers, and load their instances as they then are, in one message.

    The first is the one a hint names, if it is still ready and none of its queue is of a higher priority, else the most
    urgent one. One queue, so that the index gives them in order: for several, the whole backlog would be read.

    Args:
        step_id: The step that a hint names.
        together: Handlers of which several steps may be claimed at once; more follow only a first one of these.
        readers: Handlers that read the context.
        limit: Steps claimed at the most.
        alive_within: Tells also which handlers such workers know, and the routes.
    """
    wish = (
        step_id,
        queue,
        array_of(handlers),
        array_of(together),
        limit,
        worker.id,
        worker.name,
        worker.slot,
    )
    tx.tell(_CLAIM_READY, wish)
    rows = tx.ask(_CLAIMED, (array_of(readers), alive_within))
    claimed = [(row[0], step_of(row[1:])) for row in rows]
    claimed.sort(key=lambda each: (each[1].id != step_id, -each[1].priority, _ready_at(each[1])))
    instances = [instance_of(row[_OF_INSTANCE]) for row in rows if row[_OF_INSTANCE.start] is not None]
    contexts = {}
    for owner, data, config, audit in [row[_OF_CONTEXT] for row in rows if row[_OF_CONTEXT.start] is not None]:
        opened = tx.unlocked(data, owner)
        if not payloads.has_parts_apart(opened):
            contexts[owner] = (context_of((opened, config)), audit)
    known = next((row[-2:] for row in rows if row[-2] is not None), None)
    return Taken(
        steps=claimed,
        instances={each.id: each for each in instances},
        contexts=contexts,
        known=None if known is None else (frozenset(known[0]), routes_of(known[1])),
    )


def _ready_at(step: Step) -> datetime:
    return step.ready_at or step.entered_at


def most_urgent(tx: Transaction, queues: Sequence[str], handlers: Sequence[str]) -> int:
    """Give the highest priority among ready steps of some queues and handlers; -1 if there is none."""
    rows = tx.query(
        "SELECT max(u.priority) FROM unnest(%s::text[]) AS q (name) CROSS JOIN LATERAL (SELECT priority FROM steps s "
        "WHERE s.state = 'ready' AND s.queue = q.name AND s.handler = ANY(%s) ORDER BY priority DESC, ready_at LIMIT 1"
        ") AS u",
        (list(queues), list(handlers)),
    )
    found = rows[0][0] if rows else None
    return -1 if found is None else int(found)


def claim_tasks(
    tx: Transaction,
    *,
    queue: str,
    is_named: bool,
    handler: str,
    tenant_id: str | None,
    takers: Sequence[str],
    rank: Sequence[int] | None = None,
) -> list[HeldTask]:
    """Claim tasks for workers that poll over HTTP; gives them the oldest first, none if there are none.

    Args:
        is_named: Whether the queue was named by the step; a plain poll takes steps without a queue.
        takers: The name of the worker that gets each task, the oldest first; so many are claimed at the most.
        rank: Of their version, as `orchestrator.versions` gives it; None for workers without one.
    """
    values = (queue, is_named, handler, tenant_id, None if rank is None else tuple(rank), array_of(takers))
    claimed = [_held(row) for row in tx.ask(_CLAIM_TASKS, values)]
    return sorted(claimed, key=lambda task: (_ready_at(task.step), task.step.id))


def _worker(worker: Worker) -> dict[str, Any]:
    return {"worker_id": worker.id, "worker_name": worker.name, "slot": worker.slot}


_HELD = form(
    "held_tasks",
    ["uuid[]"],
    f"SELECT s.instance_id, s.heartbeat_at, s.checkpoint, s.checkpoint_seq, {_STEP} FROM steps s WHERE s.id = ANY($1)",
)


def held_tasks(tx: Transaction, step_ids: Sequence[UUID]) -> list[HeldTask]:
    """Read open steps by id; those that have ended are left out."""
    return [_held(row) for row in tx.ask(_HELD, (array_of(step_ids),))]


def _held(row: Sequence[Any]) -> HeldTask:
    return HeldTask(
        instance_id=row[0], heartbeat_at=row[1], checkpoint=row[2], checkpoint_seq=row[3], step=step_of(row[4:])
    )


def has_committed(tx: Transaction, claim: Claim) -> bool:
    """Tell whether the outcome of this very claim is stored already: a report whose answer was lost.

    The history also keeps claims that ended without a report; those are lost.
    """
    return bool(
        tx.query(
            "SELECT 1 FROM attempts WHERE instance_id = %s AND token = %s AND outcome IN ('completed', 'failed') "
            "LIMIT 1",
            (claim.instance_id, claim.token),
        )
    )


def is_held_by(tx: Transaction, step_id: UUID, token: UUID) -> bool:
    """Tell whether a claim still stands."""
    return bool(tx.query("SELECT 1 FROM steps WHERE id = %s AND token = %s AND state = 'claimed'", (step_id, token)))


def beat(tx: Transaction, step_id: UUID, token: UUID) -> bool:
    """Renew the lease of a claim; False if it has ended."""
    return bool(
        tx.execute(
            "UPDATE steps SET heartbeat_at = clock_timestamp() WHERE id = %s AND token = %s AND state = 'claimed'",
            (step_id, token),
        )
    )


def save_checkpoint(tx: Transaction, step_id: UUID, token: UUID, checkpoint: Any, sequence: int) -> bool:
    """Store a worker's checkpoint and raise its number; False if the claim or the number is no longer current."""
    return bool(
        tx.execute(
            "UPDATE steps SET heartbeat_at = clock_timestamp(), checkpoint = %s, checkpoint_seq = checkpoint_seq + 1 "
            "WHERE id = %s AND token = %s AND state = 'claimed' AND checkpoint_seq = %s",
            (private(checkpoint), step_id, token, sequence),
        )
    )


def release_stale_tasks(tx: Transaction, stale_after: timedelta, limit: int) -> int:
    """Give tasks of silent HTTP workers back to their queue: same id, attempt and checkpoint; returns how many.

    Tasks claimed by workers of our own are left to `lost_claims`: their heartbeat is the process's.
    """
    taken = tx.query(
        "WITH stale AS MATERIALIZED (SELECT id, worker_name, claimed_at FROM steps WHERE state = 'claimed' "
        "AND worker_id IS NULL AND heartbeat_at < clock_timestamp() - %s ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED) "
        "UPDATE steps s SET state = 'ready', token = NULL, worker_id = NULL, worker_name = NULL, claimed_at = NULL, "
        "heartbeat_at = NULL FROM stale WHERE s.id = stale.id "
        "RETURNING s.instance_id, s.id, s.claim_epoch, stale.worker_name, stale.claimed_at, clock_timestamp()",
        (stale_after, limit),
    )
    if taken:
        task_events.note_reclaimed(tx, [row[:5] for row in taken], taken[0][5])
    return len(taken)


def lost_claims(tx: Transaction, dead_after: timedelta, limit: int) -> list[Claim]:
    """List claims of worker processes that have stopped their heartbeat, or have left no row at all."""
    return _claimed(
        tx.query(
            f"SELECT s.instance_id, {_STEP} FROM steps s LEFT JOIN workers w ON w.id = s.worker_id "
            "WHERE s.state = 'claimed' AND s.worker_id IS NOT NULL "
            "AND (w.id IS NULL OR w.heartbeat_at < clock_timestamp() - %s) ORDER BY s.id LIMIT %s",
            (dead_after, limit),
        )
    )


def claims_of(tx: Transaction, worker_id: UUID) -> list[Claim]:
    """List the claims of one worker process."""
    return _claimed(
        tx.query(
            f"SELECT s.instance_id, {_STEP} FROM steps s WHERE s.worker_id = %s AND s.state = 'claimed'",
            (worker_id,),
        )
    )


def claims_of_slots(tx: Transaction, worker_id: UUID) -> list[tuple[int, Claim]]:
    """List the claims of one worker process with the child that holds each."""
    claims = tx.query(
        f"SELECT s.instance_id, {_STEP} FROM steps s WHERE s.worker_id = %s AND s.state = 'claimed'",
        (worker_id,),
    )
    return [(step.slot, claim_of(row[0], step)) for row in claims if (step := step_of(row[1:])).slot is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A ready step that waits for a hint."""

    step_id: UUID
    queue: str
    handler: str
    tenant_id: str
    priority: int
    attempt: int
    hints: int


def heads(tx: Transaction, handlers: Sequence[str], again_after: timedelta, limit: int) -> list[Head]:
    """List ready steps of known handlers that have no hint out, or whose hint is older than `again_after`.

    At most `limit` for each queue, in claiming order.
    """
    rows = tx.query(
        "SELECT h.id, q.queue, h.handler, h.tenant_id, h.priority, h.attempt, h.hints FROM "
        "(SELECT DISTINCT queue FROM steps WHERE state = 'ready') AS q CROSS JOIN LATERAL ("
        "SELECT id, handler, tenant_id, priority, attempt, hints, ready_at FROM steps s WHERE s.state = 'ready' "
        "AND s.queue = q.queue AND s.handler = ANY(%s) "
        "AND (s.hinted_at IS NULL OR s.hinted_at < clock_timestamp() - %s) "
        "ORDER BY priority DESC, ready_at LIMIT %s) AS h",
        (list(handlers), again_after, limit),
    )
    return [
        Head(
            step_id=row[0],
            queue=row[1],
            handler=row[2],
            tenant_id=row[3],
            priority=row[4],
            attempt=row[5],
            hints=row[6],
        )
        for row in rows
    ]


def has_ready(tx: Transaction) -> bool:
    """Tell whether any step is ready, hinted or not."""
    return bool(tx.query("SELECT 1 FROM steps WHERE state = 'ready' LIMIT 1"))


def outstanding_hints(tx: Transaction, fresh_for: timedelta) -> dict[str, int]:
    """Count, for each queue, the hints that are out and have not been answered by a claim."""
    return dict(
        tx.query(
            "SELECT queue, count(*) FROM steps WHERE state = 'ready' AND hinted_at >= clock_timestamp() - %s "
            "GROUP BY queue",
            (fresh_for,),
        )
    )


def mark_hinted(tx: Transaction, step_ids: Sequence[UUID]) -> None:
    """Note that a hint for these steps is on its way."""
    tx.execute(
        "UPDATE steps SET hinted_at = clock_timestamp(), hints = hints + 1 WHERE id IN "
        "(SELECT id FROM steps WHERE id = ANY(%s::uuid[]) AND state = 'ready' ORDER BY id FOR UPDATE SKIP LOCKED)",
        (list(step_ids),),
    )


def forget_hints(tx: Transaction) -> int:
    """Forget all hints: the broker has lost them. Returns how many ready steps will be hinted anew.

    A step that somebody is writing at this moment is passed over: it may have ended, and else its hint gets old.
    """
    return tx.execute(
        "WITH hinted AS MATERIALIZED (SELECT id FROM steps WHERE state = 'ready' AND hinted_at IS NOT NULL "
        "ORDER BY id FOR UPDATE SKIP LOCKED) UPDATE steps s SET hinted_at = NULL FROM hinted WHERE s.id = hinted.id"
    )


def backlog(tx: Transaction) -> list[tuple[str, str, int]]:
    """Count open steps by queue and state."""
    return [
        (row[0], row[1], row[2])
        for row in tx.query("SELECT queue, state, count(*) FROM steps GROUP BY queue, state ORDER BY queue, state")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A timer whose moment has come."""

    instance_id: UUID
    key: NodeKey
    due_at: datetime


def due_timers(tx: Transaction, limit: int) -> list[Due]:
    """List timers whose moment has come, the oldest first."""
    rows = tx.query(
        "SELECT instance_id, block_id, iteration, due_at FROM timers WHERE due_at <= statement_timestamp() "
        "ORDER BY due_at LIMIT %s",
        (limit,),
    )
    return [Due(instance_id=row[0], key=NodeKey(row[1], tuple(row[2])), due_at=row[3]) for row in rows]


def drop_timers(tx: Transaction, timers: Sequence[Due]) -> None:
    """Remove timers that no longer mean anything, unless they were set anew since they were seen.

    One that somebody is writing at this moment is passed over, and seen again if it stays.
    """
    if timers:
        rows = [(due.instance_id, due.key.block_id, list(due.key.iteration), due.due_at) for due in timers]
        keys = tx.values("(%s::uuid, %s::text, %s::int[], %s::timestamptz)", rows)
        tx.execute(
            "WITH spent AS MATERIALIZED (SELECT instance_id, block_id, iteration FROM timers "
            f"WHERE (instance_id, block_id, iteration, due_at) IN (VALUES {keys}) "
            "ORDER BY instance_id, block_id, iteration FOR UPDATE SKIP LOCKED) "
            "DELETE FROM timers t USING spent s "
            "WHERE t.instance_id = s.instance_id AND t.block_id = s.block_id AND t.iteration = s.iteration"
        )


def postpone_timer(tx: Transaction, due: Due, by: timedelta) -> None:
    """Look at a timer again later, unless it was set anew since it was seen."""
    tx.execute(
        "UPDATE timers SET due_at = clock_timestamp() + %s "
        "WHERE instance_id = %s AND block_id = %s AND iteration = %s::int[] AND due_at = %s",
        (by, due.instance_id, due.key.block_id, list(due.key.iteration), due.due_at),
    )


def next_due(tx: Transaction) -> timedelta | None:
    """Say how long until the next timer is due; None if there is none."""
    rows = tx.query("SELECT min(due_at) - clock_timestamp() FROM timers")
    return rows[0][0] if rows else None
