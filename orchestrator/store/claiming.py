"""Claiming ready steps: one that is named, the most urgent of a queue, or tasks for workers that poll over HTTP.

A claim does not take the instance's lock: it changes nothing that the core decides on. It touches only rows in the
state it expects, skips rows that others hold, and so never waits.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from orchestrator.core.changes import ContextPut
from orchestrator.core.model import Claim, Instance, Step
from orchestrator.core.routing import Routes
from orchestrator.encryption import Unreadable
from orchestrator.store import payloads
from orchestrator.store.leases import HELD_TASK_OF_S, HELD_TASK_WIDTH, STEP_OF_S, HeldTask, claims_in, held_task_of
from orchestrator.store.prepared import array_of, form
from orchestrator.store.rows import (
    INSTANCE_COLUMNS,
    INSTANCE_WIDTH,
    STEP_WIDTH,
    context_of,
    instance_of,
    step_of,
)
from orchestrator.store.sealing import opened_json
from orchestrator.store.session import Transaction
from orchestrator.store.worker_orders import HANDLERS, ROUTES, routes_of

# A year that Python cannot read would hide the row, and all that are read with it, from whoever asks.
_LATEST = "timestamptz '9999-12-31Z'"
_EXPIRES_AT = f"""LEAST(
        COALESCE(s.expires_at, CASE WHEN s.timeout IS NOT NULL
            THEN clock_timestamp() + LEAST(s.timeout, {_LATEST} - clock_timestamp()) END),
        s.deadline_at + LEAST(interval '1 second', {_LATEST} - s.deadline_at))"""

# MATERIALIZED: as the inner side of a join, a sub-select is run anew for each row, and each time gives other free rows,
# so that more are claimed than its limit says.
_CLAIM = f"""
WITH free AS MATERIALIZED ({{}})
UPDATE steps s
SET state = 'claimed', token = gen_random_uuid(), worker_id = %(worker_id)s, worker_name = %(worker_name)s,
    slot = %(slot)s, claimed_at = clock_timestamp(), heartbeat_at = clock_timestamp(), claim_epoch = s.claim_epoch + 1,
    expires_at = {_EXPIRES_AT}
FROM free
WHERE s.id = free.id
RETURNING s.instance_id, {STEP_OF_S}
"""


# For the statement behind it in the same transaction.
_NOTE_CLAIMED = (
    "SELECT set_config('orchestrator.claimed', coalesce((SELECT array_agg(id) FROM claimed)::text, '{}'), true)"
)
_NOTED_AS_CLAIMED = (
    "(SELECT * FROM steps WHERE id = ANY(current_setting('orchestrator.claimed', true)::uuid[]) OFFSET 0) AS found"
)

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
    f"""
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
        expires_at = {_EXPIRES_AT}
    WHERE s.id = ANY(ARRAY(SELECT id FROM first UNION ALL SELECT id FROM more))
    RETURNING s.id)
{_NOTE_CLAIMED}
""",
)


_INSTANCE = ", ".join(f"i.{name}" for name in INSTANCE_COLUMNS.split(", "))
# As text: one that cannot be opened must not keep the others from being claimed.
_CONTEXT = "c.instance_id, c.data::text, c.config::text, c.audit::text"
# Of a step s: `place` tells the first of each instance, `reads` whether its context is wanted.
# OFFSET 0: a join whose plan is kept goes from each step to its instance, whatever the tables were when it was made.
_ITS_INSTANCE_AND_CONTEXT = """
LEFT JOIN LATERAL (SELECT * FROM instances WHERE id = s.instance_id AND s.place = 1 OFFSET 0) AS i ON true
LEFT JOIN LATERAL (SELECT * FROM contexts WHERE instance_id = i.id AND s.reads OFFSET 0) AS c ON true
"""

_CLAIMED = form(
    "claimed",
    ["text[]", "interval"],
    f"""
WITH s AS MATERIALIZED (
    SELECT *, row_number() OVER () = 1 AS is_first,
        row_number() OVER own AS place, bool_or(handler = ANY($1)) OVER own AS reads
    FROM {_NOTED_AS_CLAIMED}
    WINDOW own AS (PARTITION BY instance_id))
SELECT s.instance_id, {STEP_OF_S}, {_INSTANCE}, {_CONTEXT},
    CASE WHEN is_first AND $2 IS NOT NULL THEN {HANDLERS.format("$2")} END,
    CASE WHEN is_first AND $2 IS NOT NULL THEN {ROUTES} END
FROM s{_ITS_INSTANCE_AND_CONTEXT}""",
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
),
claimed AS (
  UPDATE steps s
  SET state = 'claimed', token = gen_random_uuid(), worker_id = NULL, slot = NULL,
      worker_name = ($6)[array_position(ARRAY(SELECT id FROM free ORDER BY ready_at, id), s.id)],
      claimed_at = clock_timestamp(), heartbeat_at = clock_timestamp(), claim_epoch = s.claim_epoch + 1,
      expires_at = {_EXPIRES_AT}
  WHERE s.id = ANY(ARRAY(SELECT id FROM free))
  RETURNING s.id)
{_NOTE_CLAIMED}
""",
)

_CLAIMED_TASKS = form(
    "claimed_tasks",
    [],
    f"""
WITH s AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY instance_id) AS place, true AS reads FROM {_NOTED_AS_CLAIMED})
SELECT {HELD_TASK_OF_S}, {_INSTANCE}, {_CONTEXT} FROM s{_ITS_INSTANCE_AND_CONTEXT}""",
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
class TakenTasks:
    """Tasks that were claimed, the oldest first, and what their inputs are made of; see `Taken`."""

    tasks: list[HeldTask]
    instances: dict[UUID, Instance]
    contexts: dict[UUID, tuple[ContextPut, Any]]

    @property
    def steps(self) -> list[tuple[UUID, Step]]:
        """Each step with the instance it belongs to."""
        return [(task.instance_id, task.step) for task in self.tasks]


def claim_one(tx: Transaction, step_id: UUID, handlers: Sequence[str], worker: Worker) -> Claim | None:
    """Claim a certain step; None if it is no longer ready, or its handler is not among those: a normal ending."""
    parameters = {**_worker(worker), "step_id": step_id, "handlers": list(handlers)}
    rows = tx.query(_CLAIM.format(_FREE_STEP), parameters)
    return claims_in(rows)[0] if rows else None


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
    instances, contexts = _instances_and_contexts(tx, [row[1 + STEP_WIDTH :] for row in rows])
    known = next((row[-2:] for row in rows if row[-2] is not None), None)
    return Taken(
        steps=claimed,
        instances=instances,
        contexts=contexts,
        known=None if known is None else (frozenset(known[0]), routes_of(known[1])),
    )


def _instances_and_contexts(
    tx: Transaction, rows: Sequence[Sequence[Any]]
) -> tuple[dict[UUID, Instance], dict[UUID, tuple[ContextPut, Any]]]:
    """Read rows of `_INSTANCE` and `_CONTEXT`; contexts that have to be looked for once more are left out."""
    instances = [instance_of(row[:INSTANCE_WIDTH]) for row in rows if row[0] is not None]
    contexts = {}
    for owner, *texts in (row[INSTANCE_WIDTH : INSTANCE_WIDTH + 4] for row in rows):
        if owner is not None and (found := _context_of(tx, owner, texts)) is not None:
            contexts[owner] = found
    return {each.id: each for each in instances}, contexts


def _context_of(tx: Transaction, owner: UUID, texts: Sequence[str | None]) -> tuple[ContextPut, Any] | None:
    """Read the sections of a context; None if a part is stored apart, or one cannot be opened.

    Whoever then reads it for this instance alone is told why it cannot.
    """
    try:
        data, config, audit = (
            None if text is None else orjson.loads(opened_json(text, owner, tx.vault)) for text in texts
        )
    except Unreadable:
        return None
    return None if payloads.has_parts_apart(data) else (context_of((data, config)), audit)


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
) -> TakenTasks:
    """Claim tasks for workers that poll over HTTP, and load their instances as they then are, in one message.

    Args:
        is_named: Whether the queue was named by the step; a plain poll takes steps without a queue.
        takers: The name of the worker that gets each task, the oldest first; so many are claimed at the most.
        rank: Of their version, as `orchestrator.versions` gives it; None for workers without one.
    """
    values = (queue, is_named, handler, tenant_id, None if rank is None else tuple(rank), array_of(takers))
    tx.tell(_CLAIM_TASKS, values)
    rows = tx.ask(_CLAIMED_TASKS, ())
    tasks = [held_task_of(row[:HELD_TASK_WIDTH]) for row in rows]
    instances, contexts = _instances_and_contexts(tx, [row[HELD_TASK_WIDTH:] for row in rows])
    return TakenTasks(
        tasks=sorted(tasks, key=lambda task: (_ready_at(task.step), task.step.id)),
        instances=instances,
        contexts=contexts,
    )


def _worker(worker: Worker) -> dict[str, Any]:
    return {"worker_id": worker.id, "worker_name": worker.name, "slot": worker.slot}
