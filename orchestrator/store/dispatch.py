"""Queues whose tasks are pushed to an address, and which tasks were (contract, api §13.8).

A task that is pushed stays a ready step that anybody may poll. Its row here says that it was pushed, or when it will be
again; the row of a task is made once, by one of the services, and its tries are claims that end by themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.store.sealing import PrivateText
from orchestrator.store.session import Transaction
from sequences.handlers import BUILTIN_HANDLERS

_COLUMNS = "tenant_id, queue_name, mode, push_url, secret, second_secret, sync, created_at, updated_at"
_TASKS = (
    "s.state = 'ready' AND s.queue = %(queue)s AND s.is_queue_named AND s.tenant_id = %(tenant)s "
    "AND s.handler <> ALL(%(builtin)s) AND s.handler !~ '^[a-z]+://'"
)
_CLAIM_NEW = f"""
WITH new AS MATERIALIZED (
    SELECT s.id FROM steps s WHERE {_TASKS} AND NOT EXISTS (SELECT 1 FROM task_pushes p WHERE p.step_id = s.id)
    ORDER BY s.priority DESC, s.ready_at LIMIT %(limit)s)
INSERT INTO task_pushes (step_id, tries, due_at, token)
SELECT id, 0, clock_timestamp() + %(lease)s, gen_random_uuid() FROM new ON CONFLICT DO NOTHING
RETURNING step_id, token, tries
"""
_CLAIM_DUE = f"""
WITH due AS MATERIALIZED (
    SELECT p.step_id FROM task_pushes p JOIN steps s ON s.id = p.step_id
    WHERE p.due_at <= statement_timestamp() AND {_TASKS}
    ORDER BY p.due_at LIMIT %(limit)s FOR UPDATE OF p SKIP LOCKED)
UPDATE task_pushes p SET token = gen_random_uuid(), due_at = clock_timestamp() + %(lease)s
FROM due WHERE p.step_id = due.step_id RETURNING p.step_id, p.token, p.tries
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchConfig:
    """How the tasks of a queue reach their worker.

    Args:
        mode: `poll` or `push`.
        push_url: Where they are pushed; None for a queue that is only polled.
        secret: Signs what is pushed. Never shown.
        second_secret: Signs it, too, while receivers change from one to the other. Never shown.
        sync: Whether a refusal of the receiver is the failure of the task.
    """

    tenant_id: str
    queue_name: str
    mode: str
    push_url: str | None
    secret: str | None
    second_secret: str | None
    sync: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """A task that is ours to push, until the claim ends.

    Args:
        tries: Those that have failed.
    """

    step_id: UUID
    token: UUID
    tries: int


def put(
    tx: Transaction,
    *,
    tenant_id: str,
    queue_name: str,
    mode: str,
    push_url: str | None,
    secret: str | None,
    second_secret: str | None,
    sync: bool,
) -> DispatchConfig:
    """Say how the tasks of a queue reach their worker, in place of what was said before."""
    secrets = (None if each is None else PrivateText(each) for each in (secret, second_secret))
    rows = tx.query(
        f"INSERT INTO dispatch_configs ({_COLUMNS}) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, statement_timestamp(), statement_timestamp()) "
        "ON CONFLICT (tenant_id, queue_name) DO UPDATE SET mode = EXCLUDED.mode, push_url = EXCLUDED.push_url, "
        "secret = EXCLUDED.secret, second_secret = EXCLUDED.second_secret, sync = EXCLUDED.sync, "
        f"updated_at = EXCLUDED.updated_at RETURNING {_COLUMNS}",
        (tenant_id, queue_name, mode, push_url, *secrets, sync),
    )
    return _config(tx, rows[0])


def find(tx: Transaction, tenant_id: str | None) -> list[DispatchConfig]:
    """List what was said of queues, of one tenant or of all."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM dispatch_configs WHERE (%(tenant)s IS NULL OR tenant_id = %(tenant)s) "
        "ORDER BY tenant_id, queue_name",
        {"tenant": tenant_id},
    )
    return [_config(tx, row) for row in rows]


def push_queues(tx: Transaction) -> list[DispatchConfig]:
    """List the queues whose tasks are pushed."""
    rows = tx.query(f"SELECT {_COLUMNS} FROM dispatch_configs WHERE mode = 'push' ORDER BY tenant_id, queue_name")
    return [_config(tx, row) for row in rows]


def delete(tx: Transaction, tenant_id: str, queue_name: str) -> bool:
    """Let a queue be polled only; False if nothing was said of it."""
    return bool(
        tx.execute("DELETE FROM dispatch_configs WHERE tenant_id = %s AND queue_name = %s", (tenant_id, queue_name))
    )


def claim(tx: Transaction, config: DispatchConfig, *, lease: timedelta, limit: int) -> list[Push]:
    """Claim tasks of a queue to be pushed: those whose try is due, then new ones; empty if there are none."""
    parameters = {
        "queue": config.queue_name,
        "tenant": config.tenant_id,
        "builtin": sorted(BUILTIN_HANDLERS),
        "lease": lease,
        "limit": limit,
    }
    rows = tx.query(_CLAIM_DUE, parameters)
    if len(rows) < limit:
        rows += tx.query(_CLAIM_NEW, {**parameters, "limit": limit - len(rows)})
    return [Push(step_id=row[0], token=row[1], tries=row[2]) for row in rows]


def settle(tx: Transaction, push: Push, *, tries: int, again_after: timedelta | None) -> bool:
    """End a claim; False if it had ended already.

    Args:
        again_after: When the task is pushed again; None for never.
    """
    return bool(
        tx.execute(
            "UPDATE task_pushes SET tries = %s, due_at = clock_timestamp() + %s, token = NULL "
            "WHERE step_id = %s AND token = %s",
            (tries, again_after, push.step_id, push.token),
        )
    )


def next_due(tx: Transaction) -> timedelta | None:
    """Say how long until a task is to be pushed again; None if none is."""
    rows = tx.query("SELECT min(due_at) - clock_timestamp() FROM task_pushes WHERE due_at IS NOT NULL")
    return rows[0][0] if rows else None


def forget_ended(tx: Transaction, limit: int) -> int:
    """Remove the rows of tasks that have ended; returns how many."""
    return tx.execute(
        "DELETE FROM task_pushes WHERE step_id IN (SELECT p.step_id FROM task_pushes p "
        "LEFT JOIN steps s ON s.id = p.step_id WHERE s.id IS NULL LIMIT %s)",
        (limit,),
    )


def _config(tx: Transaction, row: Sequence[Any]) -> DispatchConfig:
    members = dict(zip([name.strip() for name in _COLUMNS.split(",")], row, strict=True))
    opened = {name: tx.opened_text(members[name]) for name in ("secret", "second_secret")}
    return DispatchConfig(**{**members, **opened})
