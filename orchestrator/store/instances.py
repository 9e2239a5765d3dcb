"""Instances: the keys under which they are started once, and what clients read of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from orchestrator.core.asides import RESULT_REF
from orchestrator.core.model import BESIDE, Instance
from orchestrator.store import payloads
from orchestrator.store.fence import unless
from orchestrator.store.prepared import array_of, form, prepared
from orchestrator.store.rows import INSTANCE_COLUMNS, INSTANCE_WIDTH, instance_of
from orchestrator.store.session import Transaction, to_json


class Profile(NamedTuple):
    """What is kept of an instance beside its hot row; apart from the context it never changes."""

    data: Any = None
    config: Any = None
    metadata: Any = None
    audit: Any = None
    idempotency_key: str | None = None
    concurrency_key: str | None = None
    max_concurrency: int | None = None
    parent_instance_id: UUID | None = None


class IdempotencyKey(NamedTuple):
    """What may start one instance only: a tenant's key, apart for dry runs."""

    tenant_id: str
    dry_run: bool
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An instance as clients read it.

    Args:
        due_at: When a scheduled instance goes on; None if that is now, or does not depend on time.
        attempt: Number of the attempt its current step is at.
    """

    instance: Instance
    profile: Profile
    due_at: datetime | None
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An instance as another one may look at it.

    Args:
        ended_at: When it reached the final state it is in; None while it has none.
        newest_block: The newest block that has not ended, after the end the last one; None before the first.
    """

    record: Record
    ended_at: datetime | None
    newest_block: str | None


def reserve_keys(tx: Transaction, wanted: Mapping[IdempotencyKey, UUID]) -> dict[IdempotencyKey, UUID]:
    """Take idempotency keys for new instances; gives the instances that had some of them already.

    Waits for concurrent transactions that take the same keys. All take theirs in one order: none waits in a ring.
    """
    if not wanted:
        return {}
    rows = tx.values("(%s, %s, %s, %s::uuid)", [(*key, wanted[key]) for key in sorted(wanted)])
    taken = tx.query(
        f"INSERT INTO idempotency_keys (tenant_id, dry_run, key, instance_id) VALUES {rows} "
        "ON CONFLICT DO NOTHING RETURNING tenant_id, dry_run, key"
    )
    known = wanted.keys() - {IdempotencyKey(*row) for row in taken}
    if not known:
        return {}
    names = tx.values("(%s, %s, %s)", sorted(known))
    rows_of_first = tx.query(
        "SELECT tenant_id, dry_run, key, instance_id FROM idempotency_keys "
        f"WHERE (tenant_id, dry_run, key) IN ({names})"
    )
    return {IdempotencyKey(*row[:3]): row[3] for row in rows_of_first}


# A look for each key, and no join: a kept plan of one might read all of a table that was small when it was made.
_KEYS_ARE_FREE = form(
    "keys_are_free",
    ["text[]", "boolean[]", "text[]"],
    "WITH wanted AS (SELECT * FROM unnest($1, $2, $3) AS w (tenant_id, dry_run, key)), "
    "free AS (SELECT WHERE NOT EXISTS (SELECT FROM wanted w WHERE (SELECT true FROM idempotency_keys k "
    "WHERE k.tenant_id = w.tenant_id AND k.dry_run = w.dry_run AND k.key = w.key))) " + unless("free"),
)
_TAKE_KEYS = prepared(
    "take_keys",
    "tenant_id text, dry_run boolean, key text, instance_id uuid",
    "INSERT INTO idempotency_keys ({columns}) SELECT * FROM {rows}",
)


def expect_free_keys(tx: Transaction, wanted: Collection[IdempotencyKey]) -> None:
    """Look whether nobody has idempotency keys; if somebody has, nothing behind this is written."""
    if wanted:
        tx.tell(_KEYS_ARE_FREE, list(map(array_of, zip(*wanted, strict=True))))


def take_keys(tx: Transaction, wanted: Mapping[IdempotencyKey, UUID]) -> None:
    """Take idempotency keys that are free, in the order of `reserve_keys`; the message fails if one no longer is."""
    tx.put(_TAKE_KEYS, [(*key, wanted[key]) for key in sorted(wanted)])


# Moments of what is beside the flow (`BESIDE`) are none of those an instance waits for. The one that a client has
# chosen for the whole instance (`ROOT_KEY`) goes before those of its steps: until then none of them starts.
DUE_AT = (
    "CASE WHEN i.state = 'scheduled' THEN "
    "(SELECT coalesce(min(t.due_at) FILTER (WHERE t.block_id = ''), min(t.due_at)) FROM timers t "
    "WHERE t.instance_id = i.id AND t.iteration[1] IS DISTINCT FROM -1) END"
)
"""SQL of `Record.due_at`, of an instance `i`."""
ATTEMPT = "coalesce((SELECT max(s.attempt) FROM steps s WHERE s.instance_id = i.id AND s.block_id = i.current_step), 0)"
"""SQL of `Record.attempt`."""
_RECORD = (
    f"SELECT {', '.join(f'i.{name.strip()}' for name in INSTANCE_COLUMNS.split(','))}, c.data, c.config, c.metadata, "
    f"c.audit, c.idempotency_key, c.concurrency_key, c.max_concurrency, c.parent_instance_id, {DUE_AT}, {ATTEMPT} "
    "FROM instances i JOIN contexts c ON c.instance_id = i.id"
)


def _records(tx: Transaction, rows: Sequence[Sequence[Any]]) -> list[Record]:
    whole = payloads.whole_data(tx, [(row[0], row[INSTANCE_WIDTH]) for row in rows])
    return [_record_of(row, data) for row, data in zip(rows, whole, strict=True)]


def _record_of(row: Sequence[Any], data: Any) -> Record:
    rest = row[INSTANCE_WIDTH:]
    return Record(
        instance=instance_of(row),
        profile=Profile(
            data=data,
            config=rest[1],
            metadata=rest[2],
            audit=rest[3],
            idempotency_key=rest[4],
            concurrency_key=rest[5],
            max_concurrency=rest[6],
            parent_instance_id=rest[7],
        ),
        due_at=rest[8],
        attempt=rest[9],
    )


def get(tx: Transaction, instance_id: UUID, tenant_id: str | None = None) -> Record | None:
    """Read one instance; None if there is none, or it belongs to another tenant than the one given."""
    rows = tx.query(f"{_RECORD} WHERE i.id = %s", (instance_id,))
    if not rows or (tenant_id is not None and rows[0][1] != tenant_id):
        return None
    return _records(tx, rows)[0]


def look_at(tx: Transaction, instance_id: UUID, tenant_id: str) -> Seen | None:
    """Read what another instance may see of one; None if there is none in this tenant."""
    record = get(tx, instance_id, tenant_id)
    if record is None:
        return None
    if record.instance.state.is_terminal:
        blocks = tx.query(
            "SELECT block_id FROM nodes WHERE instance_id = %s AND completed_at IS NOT NULL "
            "ORDER BY completed_at DESC, started_at DESC NULLS LAST LIMIT 1",
            (instance_id,),
        )
        ended = tx.query(
            "SELECT max(created_at) FROM transitions WHERE instance_id = %s AND to_state = %s",
            (instance_id, record.instance.state.value),
        )[0][0]
        ended_at = ended or record.instance.updated_at
    else:
        # Of what began at one moment the innermost is meant: a step, else a block that waits for its child.
        blocks = tx.query(
            "SELECT block_id FROM (SELECT block_id, entered_at AS began, 2 AS rank FROM steps "
            "WHERE instance_id = %(id)s AND iteration[1] IS DISTINCT FROM %(beside)s "
            "UNION ALL SELECT block_id, started_at, CASE state WHEN 'waiting' THEN 1 ELSE 0 END FROM nodes "
            "WHERE instance_id = %(id)s AND state IN ('running', 'waiting')) AS open "
            "ORDER BY began DESC, rank DESC LIMIT 1",
            {"id": instance_id, "beside": BESIDE},
        )
        ended_at = None
    return Seen(record=record, ended_at=ended_at, newest_block=blocks[0][0] if blocks else None)


def freeze(tx: Transaction) -> None:
    """Let all reads of a transaction see one moment. Must be its first statement; nothing may be written after it."""
    tx.later("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


_TENANT_OF = form("tenant_of", ["uuid"], "SELECT tenant_id FROM instances WHERE id = $1")


def tenant_of(tx: Transaction, instance_id: UUID) -> str | None:
    """Say whose instance it is; None if there is none."""
    rows = tx.ask(_TENANT_OF, (instance_id,))
    return rows[0][0] if rows else None


def children(tx: Transaction, parent_id: UUID, *, limit: int | None = None) -> list[Record]:
    """List the children of an instance, oldest first; None for all of them."""
    rows = tx.query(f"{_RECORD} WHERE c.parent_instance_id = %s ORDER BY i.id LIMIT %s", (parent_id, limit))
    return _records(tx, rows)


def states_of(tx: Transaction, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Read the states of some instances; unknown ids are left out."""
    return dict(tx.query("SELECT id, state FROM instances WHERE id = ANY(%s::uuid[])", (list(ids),)))


def outputs(tx: Transaction, instance_id: UUID) -> list[tuple[Any, ...]]:
    """Read all output rows of an instance, in the order they were written.

    The row of an interceptor and the one that its handler's result has left are given as one.

    Returns:
        Rows of id, block_id, output, output_ref, output_size, attempt, created_at, iteration.
    """
    rows = tx.query(
        "SELECT id, block_id, output, output_ref, output_size, attempt, created_at, iteration FROM outputs "
        "WHERE instance_id = %s ORDER BY id",
        (instance_id,),
    )
    whole = payloads.whole_outputs(tx, [(instance_id, row[2]) for row in rows])
    return with_results([(*row[:2], output, *row[3:]) for row, output in zip(rows, whole, strict=True)])


def with_results(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Put what handlers of interceptors have answered into the rows of their calls.

    Args:
        rows: As `outputs` returns them.
    """
    results = {(row[1], *row[7]): row for row in rows if row[3] == RESULT_REF}
    if not results:
        return rows
    return [_completed(row, results.get((row[1], *row[7]))) for row in rows if row[3] != RESULT_REF]


def _completed(row: tuple[Any, ...], result: tuple[Any, ...] | None) -> tuple[Any, ...]:
    if result is None:
        return row
    size = len(to_json({**row[2], **result[2]}).encode())
    return (*row[:2], {**row[2], **result[2]}, row[3], size, *row[5:])


def outputs_page(tx: Transaction, instance_id: UUID, *, offset: int, limit: int) -> list[tuple[Any, ...]]:
    """Read some output rows of an instance, in the order they were written.

    Returns:
        Rows of block_id, attempt, created_at, output, output_ref.
    """
    rows = tx.query(
        "SELECT block_id, attempt, created_at, output, output_ref FROM outputs WHERE instance_id = %s "
        "ORDER BY id OFFSET %s LIMIT %s",
        (instance_id, offset, limit),
    )
    whole = payloads.whole_outputs(tx, [(instance_id, row[3]) for row in rows])
    return [(*row[:3], output, row[4]) for row, output in zip(rows, whole, strict=True)]


def transitions(tx: Transaction, instance_id: UUID, limit: int) -> list[tuple[Any, ...]]:
    """Read the audit rows of an instance, newest first.

    Returns:
        Rows of id, tenant_id, event_type, from_state, to_state, block_id, details, created_at.
    """
    return tx.query(
        "SELECT id, tenant_id, event_type, from_state, to_state, block_id, details, created_at FROM transitions "
        "WHERE instance_id = %s ORDER BY id DESC LIMIT %s",
        (instance_id, limit),
    )


def attempts(tx: Transaction, instance_id: UUID, *, newest: int | None = None) -> list[tuple[Any, ...]]:
    """Read the history of executions of an instance, oldest first.

    Args:
        newest: How many, the newest ones; None for all.

    Returns:
        Rows of block_id, iteration, attempt, handler, queue, outcome, worker_id, claimed_at, ended_at, error.
    """
    rows = tx.query(
        "SELECT block_id, iteration, attempt, handler, queue, outcome, worker_id, claimed_at, ended_at, error "
        "FROM attempts WHERE instance_id = %s ORDER BY ended_at DESC, id DESC LIMIT %s",
        (instance_id, newest),
    )
    return rows[::-1]


def newest_nodes(tx: Transaction, instance_id: UUID) -> list[tuple[Any, ...]]:
    """Read the newest node of each block, composites and ended steps.

    Returns:
        Rows of block_id, iteration, state, started_at, completed_at, memory.
    """
    return tx.query(
        "SELECT DISTINCT ON (block_id) block_id, iteration, state, started_at, completed_at, memory FROM nodes "
        "WHERE instance_id = %s ORDER BY block_id, iteration DESC",
        (instance_id,),
    )


def open_steps(tx: Transaction, instance_id: UUID) -> list[tuple[Any, ...]]:
    """Read the open steps of an instance.

    Returns:
        Rows of block_id, iteration, state, activity, entered_at.
    """
    return tx.query(
        "SELECT block_id, iteration, state, activity, entered_at FROM steps WHERE instance_id = %s", (instance_id,)
    )


def state_values(tx: Transaction, instance_id: UUID) -> dict[str, Any]:
    """Read the whole key-value state of an instance."""
    return dict(tx.query("SELECT name, value FROM state_values WHERE instance_id = %s", (instance_id,)))


def open_gates(
    tx: Transaction, *, tenant_id: str | None, namespace: str | None, offset: int, limit: int
) -> list[tuple[Any, ...]]:
    """List open human gates, most recently updated first.

    Returns:
        Rows of instance_id, tenant_id, namespace, sequence_id, block_id, ready_at, wake_at, metadata, former.
    """
    return tx.query(
        "SELECT s.instance_id, i.tenant_id, i.namespace, i.sequence_id, s.block_id, s.ready_at, s.wake_at, c.metadata, "
        "s.former "
        "FROM steps s JOIN instances i ON i.id = s.instance_id JOIN contexts c ON c.instance_id = s.instance_id "
        "WHERE s.state = 'gate' AND (%(tenant)s IS NULL OR s.tenant_id = %(tenant)s) "
        "AND (%(namespace)s IS NULL OR i.namespace = %(namespace)s) "
        "AND i.state NOT IN ('completed', 'failed', 'cancelled') "
        "ORDER BY i.updated_at DESC, s.id DESC OFFSET %(offset)s LIMIT %(limit)s",
        {"tenant": tenant_id, "namespace": namespace, "offset": offset, "limit": limit},
    )
