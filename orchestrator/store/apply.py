"""Write the changes of any number of instances: each table once, all in one round trip.

The caller holds the lock of every instance it writes. What is written is collected first (`write_set`); most of it goes
by statements that the server keeps, the rest by those of `rare_writes`.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter

from orchestrator.core.changes import Change
from orchestrator.core.model import Claim, Instance
from orchestrator.store import breakers, definitions, sessions
from orchestrator.store.fence import Written, committed, unless
from orchestrator.store.prepared import Form, Prepared, array_of, form, prepared
from orchestrator.store.rare_writes import clear, forget, put_payloads, rest, trim
from orchestrator.store.rows import NODE_ROW, STEP_COLUMNS, STEP_ROW, TRANSITION_ROW, names_of
from orchestrator.store.session import Transaction
from orchestrator.store.write_set import Row, RowKey, WriteSet, minute_of

_MUTABLE = (
    "state text, version bigint, running int, waiting int, scheduled int, is_held boolean, is_cancelling boolean, "
    "parked_reason text, round int, injected int, leaving int, sequence_id uuid, run_id uuid, current_step text, "
    "current_step_started_at timestamptz, total_steps bigint, input_tokens bigint, output_tokens bigint, "
    "iterations bigint, started_at timestamptz, updated_at timestamptz"
)
_mutable_of = attrgetter("id", *names_of(_MUTABLE).split(", "))
_UPDATE_INSTANCES = prepared(
    "update_instances",
    f"id uuid, {_MUTABLE}",
    "UPDATE instances SET "
    + ", ".join(f"{name} = v.{name}" for name in names_of(_MUTABLE).split(", "))
    + " FROM {rows} WHERE instances.id = v.id",
    joins=True,
)

_FENCED = _MUTABLE.split(", ")


def _update_if_current(name: str, claims: Sequence[str], hold: str) -> Form:
    """Give the statement that updates an instance if it is as it was found, or else sets the mark.

    Args:
        claims: Types of the parameters that name claims.
        hold: A condition: these claims hold. `{first}` is the number of their first parameter, `{second}` the next.
    """
    places = {"first": len(_FENCED) + 3, "second": len(_FENCED) + 4}
    return form(
        name,
        ["uuid", *(column.split()[1] for column in _FENCED), "bigint", *claims],
        "WITH moved AS (UPDATE instances SET "
        + ", ".join(f"{column.split()[0]} = ${place}" for place, column in enumerate(_FENCED, 2))
        + f" WHERE id = $1 AND version = ${len(_FENCED) + 2} AND {hold.format(**places)} RETURNING 1) "
        + unless("moved"),
    )


# The state is no condition of the look: an index over claimed steps alone would be read to its end.
_UPDATE_IF_HELD = _update_if_current(
    "update_if_held",
    ["uuid", "uuid"],
    "(SELECT token = ${second} AND state = 'claimed' FROM steps WHERE id = ${first})",
)
_UPDATE_IF_CURRENT = _update_if_current(
    "update_if_current",
    ["uuid[]", "uuid[]"],
    "cardinality(${first}) = (SELECT count(*) FROM steps WHERE id = ANY(${first}) AND token = ANY(${second}) "
    "AND state = 'claimed')",
)

_MOVE_METADATA = prepared(
    "move_metadata",
    "id uuid, minute timestamptz",
    "UPDATE metadata_entries m SET minute = v.minute FROM {rows} WHERE m.instance_id = v.id",
    joins=True,
)

_KEY = "(instance_id, block_id, iteration)"
_KEY_ROW = "instance_id uuid, block_id text, iteration int[]"


def _removal(table: str) -> Prepared:
    """Give the statement that removes rows by their key."""
    return prepared(
        f"remove_{table}",
        _KEY_ROW,
        f"DELETE FROM {table} t USING {{rows}} WHERE t.instance_id = v.instance_id AND t.block_id = v.block_id "
        "AND t.iteration = v.iteration",
        joins=True,
    )


_PUT_NODES = prepared(
    "put_nodes",
    f"instance_id uuid, {NODE_ROW}",
    f"INSERT INTO nodes ({{columns}}) SELECT * FROM {{rows}} ON CONFLICT {_KEY} DO UPDATE SET "
    "state = EXCLUDED.state, started_at = EXCLUDED.started_at, completed_at = EXCLUDED.completed_at, "
    "memory = EXCLUDED.memory",
)
_REMOVE_NODES = _removal("nodes")
_STEP_MUTABLE = [name for name in STEP_COLUMNS.split(", ") if name not in {"block_id", "iteration"}]
# A new attempt starts without the marks of the former one: checkpoint, heartbeat, hints.
_PUT_STEPS = prepared(
    "put_steps",
    f"instance_id uuid, {STEP_ROW}",
    f"INSERT INTO steps ({{columns}}) SELECT * FROM {{rows}} ON CONFLICT {_KEY} DO UPDATE SET "
    + ", ".join(f"{name} = EXCLUDED.{name}" for name in _STEP_MUTABLE)
    + ", checkpoint = CASE WHEN steps.id = EXCLUDED.id THEN steps.checkpoint END"
    ", checkpoint_seq = CASE WHEN steps.id = EXCLUDED.id THEN steps.checkpoint_seq ELSE 0 END"
    ", heartbeat_at = EXCLUDED.claimed_at, hints = 0",
)
_REMOVE_STEPS = _removal("steps")
_PUT_TIMERS = prepared(
    "put_timers",
    f"{_KEY_ROW}, due_at timestamptz",
    f"INSERT INTO timers ({{columns}}) SELECT * FROM {{rows}} ON CONFLICT {_KEY} "
    "DO UPDATE SET due_at = EXCLUDED.due_at",
)
_REMOVE_TIMERS = _removal("timers")
_SHIFT_TIMERS = prepared(
    "shift_timers",
    f"{_KEY_ROW}, by interval",
    "UPDATE timers t SET due_at = t.due_at + v.by FROM {rows} "
    "WHERE t.instance_id = v.instance_id AND t.block_id = v.block_id AND t.iteration = v.iteration",
    joins=True,
)
_ADD_OUTPUTS = prepared(
    "add_outputs",
    "instance_id uuid, id uuid, block_id text, iteration int[], lane int[], output json, output_ref text, "
    "output_size int, attempt int, created_at timestamptz, version bigint",
    "INSERT INTO outputs ({columns}) SELECT * FROM {rows}",
)
_ADD_ATTEMPTS = prepared(
    "add_attempts",
    "instance_id uuid, ended_at timestamptz, id uuid, block_id text, iteration int[], step_id uuid, attempt int, "
    "handler text, queue text, outcome text, token uuid, worker_id uuid, claimed_at timestamptz, error json, "
    "cache_key text, worker_name text, claim_epoch int",
    "INSERT INTO attempts ({columns}) SELECT * FROM {rows}",
)
_ADD_TRANSITIONS = prepared(
    "add_transitions",
    TRANSITION_ROW,
    "INSERT INTO transitions ({columns}) SELECT * FROM {rows}",
)
_ADD_ITEMS = prepared(
    "add_items",
    "instance_id uuid, block_id text, iteration int[], index int, item json",
    "INSERT INTO items ({columns}) SELECT * FROM {rows}",
)
_PUT_CONTEXTS = prepared(
    "put_contexts",
    "instance_id uuid, data json, config json",
    "UPDATE contexts SET data = v.data, config = v.config FROM {rows} WHERE contexts.instance_id = v.instance_id",
    joins=True,
)


def write(tx: Transaction, decided: Iterable[tuple[Instance, Iterable[Change]]]) -> None:
    """Write what was decided about instances, each as it reads after it. The caller holds their locks."""
    writes = WriteSet(apart=tx.apart)
    for instance, changes in decided:
        writes.add(instance, changes)
    apply(tx, writes)


def write_at_once(
    tx: Transaction, instance: Instance, changes: Iterable[Change], *, found: int, claims: Sequence[Claim]
) -> Written | None:
    """Write what was decided about one instance in memory, and commit it, in one message.

    The row of the instance is written only if it is as it was found; whatever else is written looks at a mark that says
    so. Where something is to be written that does not look (few commits do), the instance has to be locked first.
    """
    writes = WriteSet(apart=tx.apart)
    writes.add(instance, changes)
    if not writes.is_fenced or not tx.may_end_at_once:
        return None
    row = (*_mutable_of(writes.instances[instance.id]), found)
    match claims:
        case [claim]:
            tx.tell(_UPDATE_IF_HELD, (*row, claim.step_id, claim.token))
        case _:
            ids, tokens = array_of(claim.step_id for claim in claims), array_of(claim.token for claim in claims)
            tx.tell(_UPDATE_IF_CURRENT, (*row, ids, tokens))
    _put_rows(tx, writes)
    breakers.record(tx, writes.executions)
    return committed(tx)


def apply(tx: Transaction, writes: WriteSet) -> None:
    """Write everything collected. The caller holds the locks of all instances named.

    Raises:
        SequenceGone: A definition that an instance needs from here on has been deleted.
    """
    definitions.hold(tx, writes.held)
    _send(tx, forget(tx, writes.forgotten))
    tx.put(_UPDATE_INSTANCES, [_mutable_of(writes.instances[i]) for i in sorted(writes.instances)])
    _send(tx, clear(tx, writes.cleared))
    _send(tx, put_payloads(tx, writes))
    _put_rows(tx, writes)
    _send(tx, trim(tx, writes))
    _send(tx, rest(tx, writes))
    sessions.fold(tx, writes.sessions)
    breakers.record(tx, writes.executions)


def _put_rows(tx: Transaction, writes: WriteSet) -> None:
    tx.put(_MOVE_METADATA, [(i, minute_of(writes.instances[i].updated_at)) for i in sorted(writes.moved)])
    _put_or_remove(tx, writes.nodes, _PUT_NODES, _REMOVE_NODES)
    _put_or_remove(tx, writes.steps, _PUT_STEPS, _REMOVE_STEPS)
    _put_or_remove(tx, writes.timers, _PUT_TIMERS, _REMOVE_TIMERS)
    tx.put(_SHIFT_TIMERS, writes.shifted_timers)
    tx.put(_ADD_OUTPUTS, writes.outputs)
    tx.put(_ADD_ATTEMPTS, writes.attempts)
    tx.put(_ADD_TRANSITIONS, writes.transitions)
    tx.put(_PUT_CONTEXTS, list(writes.contexts.values()))
    tx.put(_ADD_ITEMS, writes.items)


def _send(tx: Transaction, statements: Iterable[str]) -> None:
    for statement in statements:
        tx.later(statement)


def _put_or_remove(tx: Transaction, rows: dict[RowKey, Row | None], put: Prepared, remove: Prepared) -> None:
    gone = [(owner, *key) for (owner, key), row in rows.items() if row is None]
    tx.put(remove, gone)
    tx.put(put, [row for row in rows.values() if row is not None])
