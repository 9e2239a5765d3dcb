"""Statements for what few commits write: put together for each of them, and not kept by the server."""

from collections.abc import Sequence
from uuid import UUID

from orchestrator.core.model import ROOT_KEY
from orchestrator.store import checkpoints, payloads, step_logs, usage, webhooks
from orchestrator.store.counters import COMPACTED
from orchestrator.store.rows import INSTANCE_COLUMNS, INSTANCE_WIDTH, LETTER_COLUMNS, instance_row
from orchestrator.store.session import Transaction
from orchestrator.store.write_set import Row, WriteSet

_CREATE = f"INSERT INTO instances ({INSTANCE_COLUMNS}) VALUES {{}}"
_CREATE_TEMPLATE = "(" + ", ".join(["%s"] * INSTANCE_WIDTH) + ")"


def _counting(deletion: str) -> str:
    """Count the rows of outputs that a statement deletes, beside what it does to them."""
    return payloads.WITH_OUTPUTS.format(deletion).replace(
        ") DELETE FROM payloads",
        "), counted AS (INSERT INTO counters (name, value) "
        f"SELECT '{COMPACTED}:' || right(instance_id::text, 1), count(*) FROM gone GROUP BY 1 ORDER BY 1 "
        "ON CONFLICT (name) DO UPDATE SET value = counters.value + EXCLUDED.value) DELETE FROM payloads",
    )


# The rows behind the newest `keep` of their block and lane (outputs_newest_idx). Runs after new rows are in.
_TRIM_OUTPUTS = _counting(
    "DELETE FROM outputs o USING (VALUES {}) AS w (instance_id, block_id, lane, keep, since) "
    "WHERE o.instance_id = w.instance_id AND o.block_id = w.block_id AND o.lane[1:cardinality(w.lane)] = w.lane "
    "AND (w.since IS NULL OR o.iteration < w.since) "
    "AND o.id <= (SELECT n.id FROM outputs n WHERE n.instance_id = w.instance_id AND n.block_id = w.block_id "
    "AND n.lane[1:cardinality(w.lane)] = w.lane ORDER BY n.id DESC OFFSET w.keep LIMIT 1)",
)
_TRIM_TEMPLATE = "(%s::uuid, %s::text, %s::int[], %s::int, %s::int[])"
_MERGE_METADATA = (
    "UPDATE contexts SET metadata = (CASE jsonb_typeof(metadata) WHEN 'object' THEN metadata ELSE '{{}}' END) "
    "|| v.added::jsonb FROM (VALUES {}) AS v (id, added) WHERE contexts.instance_id = v.id::uuid"
)
_PUT_STATE = (
    "INSERT INTO state_values (instance_id, name, value) VALUES {} "
    "ON CONFLICT (instance_id, name) DO UPDATE SET value = EXCLUDED.value"
)


_WRITE_LETTERS = f"INSERT INTO letters ({LETTER_COLUMNS}, due_at) VALUES {{}}"
_LETTER_TEMPLATE = "(%s, %s, %s, %s, %s, clock_timestamp() + %s)"
# A child has its parent's config as it is stored.
_INHERIT = (
    "INSERT INTO contexts (instance_id, data, config, metadata, parent_instance_id) "
    "SELECT v.id, v.data, p.config, 'null', p.instance_id "
    "FROM (VALUES {}) AS v (id, data, parent_id) JOIN contexts p ON p.instance_id = v.parent_id"
)
_START_AT_ONCE = "INSERT INTO timers (instance_id, block_id, iteration, due_at) VALUES {}"


def rest(tx: Transaction, writes: WriteSet) -> list[str]:
    """Give the statements for what few commits write."""
    return [
        *_put_state(tx, writes),
        *_signals(tx, writes),
        *_insert(tx, _MERGE_METADATA, writes.metadata, "(%s, %s)"),
        *checkpoints.statements(tx, writes.checkpoints),
        *_insert(
            tx,
            "INSERT INTO injections (instance_id, number, before, blocks) VALUES {}",
            writes.injections,
            "(%s, %s, %s, %s)",
        ),
        *_children(tx, writes),
        *_insert(tx, _WRITE_LETTERS, writes.letters, _LETTER_TEMPLATE),
        *_remove_letters(tx, writes.opened_letters),
        *_insert(tx, webhooks.QUEUE, writes.webhooks, webhooks.NEW_ROW),
        *_insert(tx, usage.ADD, writes.usage, usage.ROW),
        *_insert(tx, step_logs.ADD, writes.logs, step_logs.ROW),
    ]


def _insert(tx: Transaction, statement: str, rows: Sequence[Row], template: str) -> list[str]:
    return [statement.format(tx.values(template, rows))] if rows else []


def trim(tx: Transaction, writes: WriteSet) -> list[str]:
    """Give the statement that drops output rows behind the newest ones; it comes after that of the new rows."""
    return _insert(tx, _TRIM_OUTPUTS, list(writes.trimmed.values()), _TRIM_TEMPLATE)


def put_payloads(tx: Transaction, writes: WriteSet) -> list[str]:
    """Give the statement that stores values apart."""
    rows = [payloads.row(owner, key, text) for (owner, key), text in sorted(writes.payloads.items())]
    return _insert(tx, payloads.PUT, rows, payloads.ROW)


def _put_state(tx: Transaction, writes: WriteSet) -> list[str]:
    put = [row for row in writes.state.values() if row is not None]
    gone = [key for key, row in writes.state.items() if row is None]
    statements = _insert(tx, _PUT_STATE, put, "(%s, %s, %s)")
    if gone:
        keys = tx.values("(%s::uuid, %s::text)", gone)
        statements.append(f"DELETE FROM state_values WHERE (instance_id, name) IN (VALUES {keys})")
    return statements


def clear(tx: Transaction, owners: list[UUID]) -> list[str]:
    """Give the statement that removes the rows of errors of instances."""
    if not owners:
        return []
    keys = tx.values("(%s::uuid)", [(owner,) for owner in owners])
    return [f"DELETE FROM outputs WHERE output_ref = '__error__' AND instance_id IN (VALUES {keys})"]


def forget(tx: Transaction, forgotten: list[tuple[UUID, str]]) -> list[str]:
    """Give the statements that remove nodes, outputs and items of blocks."""
    if not forgotten:
        return []
    keys = tx.values("(%s::uuid, %s::text)", forgotten)
    of_blocks = f"WHERE (instance_id, block_id) IN (VALUES {keys})"
    return [
        f"DELETE FROM nodes {of_blocks}",
        payloads.WITH_OUTPUTS.format(f"DELETE FROM outputs o {of_blocks}"),
        f"DELETE FROM items {of_blocks}",
    ]


def _signals(tx: Transaction, writes: WriteSet) -> list[str]:
    statements = _insert(
        tx,
        "INSERT INTO signals (instance_id, id, name, payload, created_at) VALUES {}",
        writes.kept_signals,
        "(%s, %s, %s, %s, clock_timestamp())",
    )
    if writes.consumed_signals:
        keys = tx.values("(%s::uuid, %s::uuid)", writes.consumed_signals)
        statements.append(
            f"UPDATE signals SET consumed_at = clock_timestamp() WHERE (instance_id, id) IN (VALUES {keys})"
        )
    return statements


def _children(tx: Transaction, writes: WriteSet) -> list[str]:
    """Insert children as they are before their first decision: a timer that is due starts them."""
    created = writes.children
    contexts = [(each.child.id, text, each.child.parent.instance_id) for each, text in created if each.child.parent]
    timers = [
        (each.child.id, ROOT_KEY.block_id, list(ROOT_KEY.iteration), each.child.created_at) for each, _ in created
    ]
    return [
        *_insert(tx, _CREATE, [instance_row(each.child) for each, _ in created], _CREATE_TEMPLATE),
        *_insert(tx, _INHERIT, contexts, "(%s::uuid, %s::json, %s::uuid)"),
        *_insert(tx, _START_AT_ONCE, timers, "(%s, %s, %s::int[], %s)"),
    ]


def _remove_letters(tx: Transaction, opened: Sequence[Row]) -> list[str]:
    if not opened:
        return []
    return [f"DELETE FROM letters WHERE (recipient_id, id) IN (VALUES {tx.values('(%s::uuid, %s::uuid)', opened)})"]
