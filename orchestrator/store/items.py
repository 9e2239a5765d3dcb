"""The items that for_eachs are at."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from orchestrator.core.model import NodeKey
from orchestrator.store.rows import key_of
from orchestrator.store.session import Transaction


def in_progress(tx: Transaction, instance_ids: Sequence[UUID]) -> dict[UUID, list[tuple[NodeKey, Any]]]:
    """Read the items of open for_eachs that have just one in progress; instances without any are left out.

    Returns:
        For each instance the for_eachs, outer ones and older ones first, and their items.
    """
    found: dict[UUID, list[tuple[NodeKey, Any]]] = {}
    # The predicate is the one of `nodes_unfinished_idx`; only the memory of a for_each has a `next`.
    rows = tx.query(
        "SELECT n.instance_id, n.block_id, n.iteration, i.item FROM nodes n JOIN items i "
        "ON i.instance_id = n.instance_id AND i.block_id = n.block_id AND i.iteration = n.iteration "
        "AND i.index = (n.memory ->> 'next')::int - 1 "
        "WHERE n.instance_id = ANY(%s::uuid[]) AND n.state IN ('running', 'waiting', 'failed', 'cancelled') "
        "AND n.state IN ('running', 'waiting') AND n.memory ->> 'open' = '1' "
        "ORDER BY cardinality(n.iteration), n.started_at, n.block_id",
        (list(instance_ids),),
    )
    for owner, block_id, iteration, item in rows:
        found.setdefault(owner, []).append((key_of(block_id, iteration), item))
    return found
