"""Rows that a new instance takes over from another one."""

from collections.abc import Callable, Sequence
from uuid import UUID

from orchestrator.store.session import Transaction

_NODES = (
    "INSERT INTO nodes (instance_id, block_id, iteration, state, started_at, completed_at, memory) "
    "SELECT %s, block_id, iteration, state, started_at, completed_at, memory FROM nodes "
    "WHERE instance_id = %s AND block_id = ANY(%s) AND state IN ('completed', 'failed', 'cancelled', 'skipped')"
)
_ITEMS = (
    "INSERT INTO items (instance_id, block_id, iteration, index, item) "
    "SELECT %s, block_id, iteration, index, item FROM items WHERE instance_id = %s AND block_id = ANY(%s)"
)
_INJECTIONS = (
    "INSERT INTO injections (instance_id, number, before, blocks) "
    "SELECT %s, number, before, blocks FROM injections WHERE instance_id = %s"
)
_STATE = (
    "INSERT INTO state_values (instance_id, name, value) "
    "SELECT %s, name, value FROM state_values WHERE instance_id = %s"
)
_OUTPUT_IDS = (
    "SELECT id FROM outputs WHERE instance_id = %s AND block_id = ANY(%s) AND lane[1] IS DISTINCT FROM -1 "
    "AND output_ref IS DISTINCT FROM '__error__' ORDER BY id"
)
_OUTPUTS = (
    "INSERT INTO outputs (instance_id, id, block_id, iteration, lane, output, output_ref, output_size, attempt, "
    "created_at) SELECT %s, v.new_id, o.block_id, o.iteration, o.lane, o.output, o.output_ref, o.output_size, "
    "o.attempt, o.created_at FROM unnest(%s::uuid[], %s::uuid[]) AS v (old_id, new_id) "
    "JOIN outputs o ON o.instance_id = %s AND o.id = v.old_id"
)
_PAYLOADS = (
    "INSERT INTO payloads (instance_id, key, value) SELECT %s, p.key, p.value FROM payloads p WHERE p.instance_id = %s "
    "AND p.key IN (SELECT output_ref FROM outputs WHERE instance_id = %s AND output_ref LIKE 'output:%%')"
)
"""Of the copied outputs what is stored apart; the data of the copy were stored as those of any new instance."""


def copy_rows(
    tx: Transaction, source_id: UUID, copy_id: UUID, blocks: Sequence[str], new_id: Callable[[], UUID]
) -> None:
    """Give a new instance what another one has: of some blocks the ended nodes, outputs, items; injections; state.

    Rows of failures and what was written beside the flow stay behind. Outputs get ids of their own, in their order.
    """
    of_blocks = (copy_id, source_id, list(blocks))
    tx.execute(_NODES, of_blocks)
    tx.execute(_ITEMS, of_blocks)
    tx.execute(_INJECTIONS, (copy_id, source_id))
    tx.execute(_STATE, (copy_id, source_id))
    ids = [row[0] for row in tx.query(_OUTPUT_IDS, (source_id, list(blocks)))]
    if ids:
        tx.execute(_OUTPUTS, (copy_id, ids, [new_id() for _ in ids], source_id))
        tx.execute(_PAYLOADS, (copy_id, source_id, copy_id))
