"""Load what decisions need, for any number of instances at once: one query for each kind of thing."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.core.model import Instance, ItemKey, NodeKey, OutputKey, Shared, Startable
from orchestrator.core.sections import rfc3339
from orchestrator.core.slice import ABSENT, Needs, Slice
from orchestrator.store import definitions, payloads, sessions
from orchestrator.store.interface import Locked
from orchestrator.store.prepared import Form, array_of, form
from orchestrator.store.rows import (
    INSTANCE_COLUMNS,
    LETTER_COLUMNS,
    NODE_COLUMNS,
    STEP_COLUMNS,
    context_of,
    instance_of,
    key_of,
    letter_of,
    node_of,
    signal_of,
    step_of,
)
from orchestrator.store.session import Transaction

Wanted = Sequence[tuple[Slice, Needs]]

ITEMS_AHEAD = 20
"""Items of a for_each loaded at once where one is asked for: the next ones will be, soon."""

_KEYS = "(%s::uuid, %s::text, %s::int[])"
Key = tuple[UUID, str, list[int]]


_INSTANCES = form("instances", ["uuid[]"], f"SELECT {INSTANCE_COLUMNS} FROM instances WHERE id = ANY($1)")


def instances(tx: Transaction, ids: Iterable[UUID]) -> dict[UUID, Instance]:
    """Load instances; ids that do not exist are left out."""
    return {row[0]: instance_of(row) for row in tx.ask(_INSTANCES, (array_of(ids),))}


# One row for all instances: with a row for each, every row would carry all tokens.
_LOCK = form(
    "lock",
    ["uuid[]", "uuid[]"],
    "WITH locked AS (SELECT id, version FROM instances WHERE id = ANY($1) ORDER BY id FOR UPDATE) "
    "SELECT array_agg(id), array_agg(version), clock_timestamp(), "
    "ARRAY(SELECT CASE WHEN state = 'claimed' THEN token END FROM steps WHERE id = ANY($2)) FROM locked",
)


def lock(tx: Transaction, ids: Sequence[UUID], step_ids: Sequence[UUID]) -> Locked:
    """Lock instances in ascending order of id; tell their versions, and which steps are claimed, by token."""
    [(found, versions, now, tokens)] = tx.ask(_LOCK, (array_of(ids), array_of(step_ids)))
    return Locked(
        now=now, versions=dict(zip(found or (), versions or (), strict=True)), held=frozenset(filter(None, tokens))
    )


# Outside of the part that locks: the time is to be that of after the wait for the lock.
_LOCK_AND_LOAD = form(
    "lock_and_load",
    ["uuid[]"],
    f"WITH locked AS (SELECT {INSTANCE_COLUMNS} FROM instances WHERE id = ANY($1) ORDER BY id FOR UPDATE) "
    "SELECT locked.*, clock_timestamp() FROM locked",
)


def lock_and_load(tx: Transaction, ids: Sequence[UUID]) -> tuple[datetime, dict[UUID, Instance]]:
    """Lock instances in ascending order of id, and load them as they are then; with the database's time."""
    rows = tx.ask(_LOCK_AND_LOAD, (array_of(ids),))
    return rows[-1][-1] if rows else tx.now(), {row[0]: instance_of(row[:-1]) for row in rows}


def fill(tx: Transaction, wanted: Wanted, *, lock: bool = False) -> None:
    """Put into each slice what it needs; what does not exist is marked as absent.

    What a slice knows already stays: it may come from a decision of the same transaction that is not written yet.
    Nothing is marked before it was looked for: a slice may go on to be used after the question has failed.

    Args:
        lock: Hold the step rows that are read, so that no worker claims them meanwhile. The instances must be locked.
    """
    _fill_nodes(tx, wanted)
    _fill_steps(tx, wanted, lock=lock)
    _fill_outputs(tx, wanted)
    _fill_state(tx, wanted)
    _fill_items(tx, wanted)
    _fill_contexts(tx, wanted)
    _fill_sessions(tx, wanted)
    _fill_metadata(tx, wanted)
    _fill_signals(tx, wanted)
    _fill_open_work(tx, wanted, lock=lock)
    _fill_sequences(tx, wanted)
    _fill_child_rows(tx, wanted)
    _fill_letters(tx, wanted)
    _fill_row_counts(tx, wanted)
    _fill_timers(tx, wanted)


def _keys(wanted: Wanted, kind: Callable[[Needs], Iterable[NodeKey]]) -> list[Key]:
    return [
        (current.instance.id, key.block_id, list(key.iteration)) for current, needs in wanted for key in kind(needs)
    ]


def _by_id(wanted: Wanted) -> dict[UUID, Slice]:
    return {current.instance.id: current for current, _ in wanted}


_OWN_KEY = "instance_id = $1 AND block_id = $2 AND iteration = $3"
_KEY_TYPES = ("uuid", "text", "int[]")
_NODES = f"SELECT instance_id, {NODE_COLUMNS} FROM nodes"
_STEPS = f"SELECT instance_id, {STEP_COLUMNS} FROM steps"
_ONE_NODE = form("one_node", _KEY_TYPES, f"{_NODES} WHERE {_OWN_KEY}")
_ONE_STEP = form("one_step", _KEY_TYPES, f"{_STEPS} WHERE {_OWN_KEY}")
_ONE_STEP_LOCKED = form("one_step_locked", _KEY_TYPES, f"{_STEPS} WHERE {_OWN_KEY} FOR UPDATE")


def _of_keys(tx: Transaction, keys: Sequence[Key], one: Form, several: str) -> list[tuple[Any, ...]]:
    """Read rows by their keys. A lone key, the usual case, is a statement that the server keeps.

    Of several, it would have to join them with the table: how that is done best depends on the table's size.
    """
    if len(keys) == 1:
        return tx.ask(one, keys[0])
    return tx.query(several.format(f"(instance_id, block_id, iteration) IN (VALUES {tx.values(_KEYS, keys)})"))


def _fill_nodes(tx: Transaction, wanted: Wanted) -> None:
    keys = _keys(wanted, lambda needs: needs.nodes)
    if not keys:
        return
    rows = _of_keys(tx, keys, _ONE_NODE, f"{_NODES} WHERE {{}}")
    for current, needs in wanted:
        current.nodes.update(dict.fromkeys(needs.nodes))
    slices = _by_id(wanted)
    for row in rows:
        node = node_of(row[1:])
        slices[row[0]].nodes[node.key] = node


def _fill_steps(tx: Transaction, wanted: Wanted, *, lock: bool) -> None:
    keys = _keys(wanted, lambda needs: needs.steps)
    if not keys:
        return
    one = _ONE_STEP_LOCKED if lock else _ONE_STEP
    rows = _of_keys(tx, keys, one, f"{_STEPS} WHERE {{}}{_locking(lock)}")
    for current, needs in wanted:
        current.steps.update(dict.fromkeys(needs.steps))
    slices = _by_id(wanted)
    for row in rows:
        step = step_of(row[1:])
        slices[row[0]].steps[step.key] = step


def _locking(lock: bool) -> str:
    return " ORDER BY id FOR UPDATE" if lock else ""


def _fill_outputs(tx: Transaction, wanted: Wanted) -> None:
    keys = [(current, key) for current, needs in wanted for key in needs.outputs]
    if not keys:
        return
    rows = [*_newest(tx, keys, is_any_below=False), *_newest(tx, keys, is_any_below=True)]
    whole = payloads.whole_outputs(tx, [(owner, output) for owner, _, output in rows])
    for current, key in keys:
        current.outputs[key] = ABSENT
    slices = _by_id(wanted)
    for (owner, key, _), output in zip(rows, whole, strict=True):
        slices[owner].outputs[key] = output


def _newest(
    tx: Transaction, keys: Sequence[tuple[Slice, OutputKey]], *, is_any_below: bool
) -> list[tuple[UUID, OutputKey, Any]]:
    asked = [(c.instance.id, k.block_id, list(k.lane)) for c, k in keys if k.is_any_below is is_any_below]
    if not asked:
        return []
    # What lies beside the flow is below no lane, and is asked for by its own.
    below = "o.lane[1:cardinality(w.lane)] = w.lane AND o.lane[1] IS DISTINCT FROM -1"
    match = below if is_any_below else "o.lane = w.lane"
    rows = tx.query(
        "SELECT w.instance_id, w.block_id, w.lane, o.output "
        f"FROM (VALUES {tx.values(_KEYS, asked)}) AS w (instance_id, block_id, lane) "
        "CROSS JOIN LATERAL (SELECT output FROM outputs o WHERE o.instance_id = w.instance_id "
        f"AND o.block_id = w.block_id AND {match} ORDER BY o.id DESC LIMIT 1) AS o"
    )
    return [(owner, OutputKey(block_id, tuple(lane), is_any_below), output) for owner, block_id, lane, output in rows]


def _fill_state(tx: Transaction, wanted: Wanted) -> None:
    known = {current.instance.id: frozenset(current.state) for current, _ in wanted}
    whole = [current for current, needs in wanted if needs.whole_state]
    names = [(current, name) for current, needs in wanted for name in needs.state]
    rows = []
    if names:
        keys = tx.values("(%s::uuid, %s::text)", [(current.instance.id, name) for current, name in names])
        rows += tx.query(
            f"SELECT instance_id, name, value FROM state_values WHERE (instance_id, name) IN (VALUES {keys})"
        )
    if whole:
        rows += tx.query(
            "SELECT instance_id, name, value FROM state_values WHERE instance_id = ANY(%s::uuid[])",
            ([current.instance.id for current in whole],),
        )
    for current in whole:
        current.whole_state = True
    for current, name in names:
        current.state[name] = ABSENT
    slices = _by_id(wanted)
    for owner, name, value in rows:
        if name not in known[owner]:
            slices[owner].state[name] = value


_ITEMS_OF_ONE = form(
    "items_of_one",
    [*_KEY_TYPES, "int[]"],
    f"SELECT instance_id, block_id, iteration, index, item FROM items WHERE {_OWN_KEY} AND index = ANY($4)",
)


def _fill_items(tx: Transaction, wanted: Wanted) -> None:
    keys = {(current.instance.id, key) for current, needs in wanted for key in needs.items}
    if not keys:
        return
    slices = _by_id(wanted)
    for owner, block_id, iteration, index, item in _items(tx, keys):
        slices[owner].items[ItemKey(key_of(block_id, iteration), index)] = item


def _items(tx: Transaction, keys: Collection[tuple[UUID, ItemKey]]) -> list[tuple[Any, ...]]:
    """Read items; where one of a for_each is asked for, those behind it too."""
    asked = Counter((owner, key.node) for owner, key in keys)
    if len(asked) == 1 < len(keys):
        [(owner, node)] = asked
        return tx.ask(_ITEMS_OF_ONE, (owner, node.block_id, node.iteration, array_of(key.position for _, key in keys)))
    rows = [
        (owner, node.block_id, list(node.iteration), position, ITEMS_AHEAD if asked[owner, node] == 1 else 1)
        for owner, (node, position) in keys
    ]
    return tx.query(
        "SELECT w.instance_id, w.block_id, w.iteration, i.index, i.item "
        f"FROM (VALUES {tx.values('(%s::uuid, %s::text, %s::int[], %s::int, %s::int)', rows)}) "
        "AS w (instance_id, block_id, iteration, position, wanted) CROSS JOIN LATERAL ("
        "SELECT index, item FROM items WHERE instance_id = w.instance_id AND block_id = w.block_id "
        "AND iteration = w.iteration AND index >= w.position ORDER BY index LIMIT w.wanted) AS i"
    )


_CONTEXTS = form(
    "contexts", ["uuid[]"], "SELECT instance_id, data, config, audit FROM contexts WHERE instance_id = ANY($1)"
)


def _fill_contexts(tx: Transaction, wanted: Wanted) -> None:
    owners = [current.instance.id for current, needs in wanted if needs.context or needs.audit]
    if not owners:
        return
    slices = _by_id(wanted)
    rows = tx.ask(_CONTEXTS, (array_of(owners),))
    whole = payloads.whole_data(tx, [(row[0], row[1]) for row in rows])
    for (owner, _, config, audit), data in zip(rows, whole, strict=True):
        current = slices[owner]
        current.audit = audit
        if current.context is None:
            current.context = context_of((data, config))


def _fill_sessions(tx: Transaction, wanted: Wanted) -> None:
    readers = [current for current, needs in wanted if needs.session]
    if readers:
        found = sessions.data_of(tx, {current.instance.session_id for current in readers})
        for current in readers:
            current.session = Shared(data=found.get(current.instance.session_id))


def _fill_metadata(tx: Transaction, wanted: Wanted) -> None:
    owners = [current.instance.id for current, needs in wanted if needs.metadata]
    if owners:
        slices = _by_id(wanted)
        for row in tx.query(
            "SELECT instance_id, metadata FROM contexts WHERE instance_id = ANY(%s::uuid[])", (owners,)
        ):
            slices[row[0]].metadata = row[1]


def _fill_signals(tx: Transaction, wanted: Wanted) -> None:
    for current, needs in wanted:
        if needs.signals:
            rows = tx.query(
                "SELECT id, name, payload FROM signals WHERE instance_id = %s AND consumed_at IS NULL ORDER BY id",
                (current.instance.id,),
            )
            current.signals = {row[0]: signal_of(row) for row in rows}


_OPEN_STEPS = form("open_steps", ["uuid"], f"SELECT {STEP_COLUMNS} FROM steps WHERE instance_id = $1")
# In the order of their ids, told in a way that no index gives: a plan that is kept, and was made while the table was
# small, would go through the steps of all instances in that order.
_OPEN_STEPS_LOCKED = form(
    "open_steps_locked",
    ["uuid"],
    f"SELECT {STEP_COLUMNS} FROM steps WHERE instance_id = $1 ORDER BY uuid_send(id) FOR UPDATE",
)
_NODES_IN_STATES = form(
    "nodes_in_states",
    ["uuid", "text[]"],
    f"SELECT {NODE_COLUMNS} FROM nodes WHERE instance_id = $1 AND state = ANY($2) "
    "AND state IN ('running', 'waiting', 'failed', 'cancelled')",
)


def _fill_open_work(tx: Transaction, wanted: Wanted, *, lock: bool) -> None:
    for current, needs in wanted:
        owner = (current.instance.id,)
        if needs.open_work:
            steps = tx.ask(_OPEN_STEPS_LOCKED if lock else _OPEN_STEPS, owner)
            current.steps = {**{step.key: step for step in map(step_of, steps)}, **current.steps}
            current.open_work = True
        if needs.open_work or needs.ended_badly:
            states = ["running", "waiting"] if needs.open_work else ["failed", "cancelled"]
            rows = tx.ask(_NODES_IN_STATES, (*owner, array_of(states)))
            current.nodes = {**{node.key: node for node in map(node_of, rows)}, **current.nodes}
            current.ended_badly = current.ended_badly or needs.ended_badly


def _fill_sequences(tx: Transaction, wanted: Wanted) -> None:
    for current, needs in wanted:
        for name in needs.sequences:
            instance = current.instance
            found = definitions.newest(tx, instance.tenant_id, instance.namespace, name.name, version=name.version)
            current.sequences[name] = (
                None
                if found is None
                else Startable(sequence_id=found.id, input_schema=found.document.get("input_schema"))
            )


HIDDEN_ROWS = frozenset({"__in_progress__", "__retry__"})
"""Marks of output rows that are the engine's own bookkeeping."""


def _fill_child_rows(tx: Transaction, wanted: Wanted) -> None:
    """Read the output rows of children that have ended: rows are only ever added, so no lock is needed.

    What was written beside the flow (`BESIDE`), as by interceptors, is no output of a block.
    """
    for current, needs in wanted:
        for child in needs.child_rows:
            rows = tx.query(
                "SELECT id, block_id, output, output_ref, output_size, attempt, created_at FROM outputs "
                "WHERE instance_id = %s AND lane[1] IS DISTINCT FROM -1 ORDER BY id",
                (child,),
            )
            shown = [row for row in rows if row[3] not in HIDDEN_ROWS]
            whole = payloads.whole_outputs(tx, [(child, row[2]) for row in shown])
            current.child_rows[child] = [
                shown_row(child, (*row[:2], output, *row[3:])) for row, output in zip(shown, whole, strict=True)
            ]


def shown_row(instance_id: UUID, row: Sequence[Any]) -> dict[str, Any]:
    """Show an output row as plain JSON, in the form that clients know (contract, api §10.4).

    Args:
        row: id, block_id, output, output_ref, output_size, attempt, created_at.
    """
    return {
        "id": str(row[0]),
        "instance_id": str(instance_id),
        "block_id": row[1],
        "output": row[2],
        "output_ref": row[3],
        "output_size": row[4],
        "attempt": row[5],
        "created_at": rfc3339(row[6]),
    }


LETTERS_AT_ONCE = 100
"""Letters of one instance that are read together; the others wait for the next look."""


def _fill_letters(tx: Transaction, wanted: Wanted) -> None:
    for current, needs in wanted:
        if needs.letters:
            rows = tx.query(
                f"SELECT {LETTER_COLUMNS} FROM letters WHERE recipient_id = %s ORDER BY id LIMIT %s",
                (current.instance.id, LETTERS_AT_ONCE),
            )
            current.letters = {row[0]: letter_of(row) for row in rows}


def _fill_row_counts(tx: Transaction, wanted: Wanted) -> None:
    for current, needs in wanted:
        if needs.rows_of:
            counted = tx.query(
                "SELECT block_id, count(*) FROM outputs WHERE instance_id = %s AND block_id = ANY(%s) "
                "GROUP BY block_id",
                (current.instance.id, list(needs.rows_of)),
            )
            current.row_counts.update({**dict.fromkeys(needs.rows_of, 0), **dict(counted)})


def _fill_timers(tx: Transaction, wanted: Wanted) -> None:
    keys = _keys(wanted, lambda needs: needs.timers)
    if not keys:
        return
    rows = tx.query(
        "SELECT instance_id, block_id, iteration, due_at FROM timers "
        f"WHERE (instance_id, block_id, iteration) IN (VALUES {tx.values(_KEYS, keys)})"
    )
    for current, needs in wanted:
        current.timers.update(dict.fromkeys(needs.timers))
    slices = _by_id(wanted)
    for owner, block_id, iteration, due_at in rows:
        slices[owner].timers[key_of(block_id, iteration)] = due_at
