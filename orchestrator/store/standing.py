"""Where one instance stands: all that it waits for at one moment. Each look is bounded and changes nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from orchestrator.core.model import Instance, NodeKey, Step
from orchestrator.core.states import InstanceState
from orchestrator.store import dead_letters, reading
from orchestrator.store.dead_letters import Failure
from orchestrator.store.rows import STEP_COLUMNS, key_of, step_of
from orchestrator.store.session import Transaction
from orchestrator.store.tasks import worker_key

MOST: Final = 100
"""Rows of each kind that are looked at: whoever waits for more waits for these too."""
POLLED_WITHIN: Final = timedelta(seconds=60)
_WIDTH = len(STEP_COLUMNS.split(", "))
_OF_STEP = ", ".join(f"s.{name}" for name in STEP_COLUMNS.split(", "))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStep:
    """A step that has not ended.

    Args:
        hints: How often workers were told of it since it was last claimed.
        heartbeat_at: When its worker was heard of last; None for one that does not say.
        is_worker_alive: Whether the process that has claimed it sends heartbeats; True for tasks of other workers.
        pushes: How often it was pushed to the address of its queue without an answer; None if it was never.
        pushed_again_at: When it is pushed again; None if it is not.
        error: How its last execution has ended badly; None if none did.
    """

    step: Step
    hints: int
    heartbeat_at: datetime | None
    is_worker_alive: bool
    pushes: int | None
    pushed_again_at: datetime | None
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """Who could run a step of one handler: queues that are served by whom knows it.

    Args:
        own: Queues of our worker processes that know the handler.
        polled: Queues from which its tasks were polled lately; a plain poll names none.
        is_polled: Whether they were.
        least_version: The version below which workers get none; None for no such rule.
        breaker: `open` or `half_open` while too many of its executions have failed in a row.
    """

    own: frozenset[str] = frozenset()
    polled: frozenset[str] = frozenset()
    is_polled: bool = False
    least_version: str | None = None
    breaker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """An instance that a block waits for."""

    id: UUID
    block_id: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an instance stands.

    Args:
        now: When it was looked at.
        timers: What moments it waits for, the nearest first.
        letters: News of parents and children that it has not read.
        hands: By handler of its ready steps.
        served: Queues that living worker processes of ours serve.
        last_move: When it came into its state, and what the audit says of it; None if that is not kept.
        failure: What it has failed of; None unless it has.
    """

    instance: Instance
    now: datetime
    steps: tuple[OpenStep, ...]
    timers: tuple[tuple[NodeKey, datetime], ...]
    children: tuple[Child, ...]
    letters: int
    hands: dict[str, Hands]
    served: frozenset[str]
    last_move: tuple[datetime, str, dict[str, Any]] | None
    failure: Failure | None


def of_instance(tx: Transaction, instance_id: UUID, dead_after: timedelta) -> Standing | None:
    """Look at an instance; None if there is none.

    The transaction should be frozen, or hold the instance: else the parts may be of different moments.

    Args:
        dead_after: How long a worker process is silent that counts as dead.
    """
    instance = reading.instances(tx, [instance_id]).get(instance_id)
    if instance is None:
        return None
    steps = _open_steps(tx, instance_id, dead_after)
    ready = {each.step.handler for each in steps}
    has_failed = instance.state is InstanceState.FAILED
    last = dead_letters.last_failure(tx, instance_id, instance.tenant_id) if has_failed else None
    return Standing(
        instance=instance,
        now=tx.now(),
        steps=steps,
        timers=_timers(tx, instance_id),
        children=_open_children(tx, instance_id),
        letters=tx.query("SELECT count(*) FROM letters WHERE recipient_id = %s", (instance_id,))[0][0],
        hands=_hands(tx, instance.tenant_id, ready, dead_after),
        served=_served(tx, dead_after),
        last_move=_last_move(tx, instance),
        failure=None if last is None else last[1],
    )


def _open_steps(tx: Transaction, instance_id: UUID, dead_after: timedelta) -> tuple[OpenStep, ...]:
    rows = tx.query(
        f"SELECT {_OF_STEP}, s.hints, s.heartbeat_at, s.worker_id IS NULL OR w.id IS NOT NULL, p.tries, p.due_at "
        "FROM steps s LEFT JOIN workers w ON w.id = s.worker_id AND w.heartbeat_at >= clock_timestamp() - %s "
        "LEFT JOIN task_pushes p ON p.step_id = s.id WHERE s.instance_id = %s "
        "ORDER BY s.block_id, s.iteration LIMIT %s",
        (dead_after, instance_id, MOST),
    )
    steps = [step_of(row) for row in rows]
    errors = _last_errors(tx, instance_id) if any(step.attempt or step.losses for step in steps) else {}
    return tuple(
        OpenStep(
            step=step,
            hints=hints,
            heartbeat_at=heartbeat_at,
            is_worker_alive=is_alive,
            pushes=pushes,
            pushed_again_at=due_at,
            error=errors.get(step.key),
        )
        for step, (hints, heartbeat_at, is_alive, pushes, due_at) in zip(
            steps, (row[_WIDTH:] for row in rows), strict=True
        )
    )


def _last_errors(tx: Transaction, instance_id: UUID) -> dict[NodeKey, dict[str, Any]]:
    rows = tx.query(
        "SELECT block_id, iteration, outcome, error FROM attempts WHERE instance_id = %s "
        "AND outcome IN ('failed', 'timed_out', 'lost') ORDER BY ended_at DESC, id DESC LIMIT %s",
        (instance_id, 10 * MOST),
    )
    errors: dict[NodeKey, dict[str, Any]] = {}
    for block_id, iteration, outcome, error in rows:
        errors.setdefault(key_of(block_id, iteration), {"outcome": outcome, **(error or {})})
    return errors


def _timers(tx: Transaction, instance_id: UUID) -> tuple[tuple[NodeKey, datetime], ...]:
    rows = tx.query(
        "SELECT block_id, iteration, due_at FROM timers WHERE instance_id = %s ORDER BY due_at LIMIT %s",
        (instance_id, MOST),
    )
    return tuple((key_of(block_id, iteration), due_at) for block_id, iteration, due_at in rows)


def _open_children(tx: Transaction, instance_id: UUID) -> tuple[Child, ...]:
    rows = tx.query(
        "SELECT i.id, coalesce(i.parent_block_id, ''), i.state FROM instances i "
        "JOIN contexts c ON c.instance_id = i.id "
        "WHERE c.parent_instance_id = %s AND i.settled_at IS NULL ORDER BY i.id LIMIT %s",
        (instance_id, MOST),
    )
    return tuple(Child(id=row[0], block_id=row[1], state=row[2]) for row in rows)


def _served(tx: Transaction, dead_after: timedelta) -> frozenset[str]:
    rows = tx.query(
        "SELECT DISTINCT unnest(queues) FROM workers "
        "WHERE kind = 'celery' AND NOT is_draining AND heartbeat_at >= clock_timestamp() - %s",
        (dead_after,),
    )
    return frozenset(row[0] for row in rows)


def _hands(tx: Transaction, tenant_id: str, handlers: Collection[str], dead_after: timedelta) -> dict[str, Hands]:
    """Say who could run steps of some handlers of a tenant; pollers of other tenants are nobody."""
    if not handlers:
        return {}
    names = sorted(handlers)
    pins = dict(
        tx.query(
            "SELECT handler_name, min_version FROM version_pins WHERE tenant_id = %s AND handler_name = ANY(%s)",
            (tenant_id, names),
        )
    )
    breakers = dict(
        tx.query(
            "SELECT handler, CASE WHEN opened_at + cooldown_secs * interval '1 second' > clock_timestamp() THEN 'open' "
            "ELSE 'half_open' END FROM circuit_breakers "
            "WHERE tenant_id = %s AND handler = ANY(%s) AND opened_at IS NOT NULL",
            (tenant_id, names),
        )
    )
    workers = tx.query(
        "SELECT id, name, kind, queues, handlers FROM workers WHERE handlers && %s AND NOT is_draining "
        "AND heartbeat_at >= clock_timestamp() - CASE kind WHEN 'http' THEN %s ELSE %s END",
        (names, POLLED_WITHIN, dead_after),
    )
    return {
        name: _hands_of(tenant_id, [each for each in workers if name in each[4]], pins.get(name), breakers.get(name))
        for name in names
    }


def _hands_of(tenant_id: str, workers: Sequence[Any], least_version: str | None, breaker: str | None) -> Hands:
    own = [queues for _, _, kind, queues, _ in workers if kind != "http"]
    polled = [
        queues
        for key, name, kind, queues, _ in workers
        if kind == "http" and key in {worker_key(tenant_id, name), worker_key(None, name)}
    ]
    return Hands(
        own=frozenset(queue for queues in own for queue in queues),
        polled=frozenset(queue for queues in polled for queue in queues),
        is_polled=bool(polled),
        least_version=least_version,
        breaker=breaker,
    )


def _last_move(tx: Transaction, instance: Instance) -> tuple[datetime, str, dict[str, Any]] | None:
    """Read what the audit says of the move into the present state; a client that sets a state leaves no row."""
    rows = tx.query(
        "SELECT created_at, event_type, details, to_state FROM transitions WHERE instance_id = %s "
        "AND to_state IS NOT NULL ORDER BY id DESC LIMIT 1",
        (instance.id,),
    )
    if not rows or rows[0][3] != instance.state.value:
        return None
    return rows[0][0], rows[0][1], rows[0][2] or {}


def kept_signals(tx: Transaction, instance_id: UUID) -> list[tuple[str | None, datetime]]:
    """List signals that no gate has taken yet, the oldest first: their name and when they came."""
    rows = tx.query(
        "SELECT name, created_at FROM signals WHERE instance_id = %s AND consumed_at IS NULL ORDER BY id LIMIT %s",
        (instance_id, MOST),
    )
    return [(row[0], row[1]) for row in rows]
