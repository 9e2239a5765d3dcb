"""Lays the items that for_eachs are at over `context.data` as clients read them (sequences contract §3.5).

The binding of an item is a scope, never written: steps see it because they are evaluated in it, clients because it is
laid over what they read. Of a for_each that may have several items in progress none is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from orchestrator.core.context import merged
from orchestrator.core.model import NodeKey
from orchestrator.core.plan import Plan
from orchestrator.slices import Plans
from orchestrator.store.instances import Record
from orchestrator.store.interface import Transaction


def shown(tx: Transaction, plans: Plans, records: Sequence[Record]) -> list[Record]:
    """Give instances as clients read them: inside the body of a for_each, its item is among their data."""
    open_ones = [record.instance for record in records if not record.instance.state.is_terminal]
    return laid_over(tx, plans.of_instances(tx, open_ones) if open_ones else {}, records)


def laid_over(tx: Transaction, plan_of: Mapping[UUID, Plan], records: Sequence[Record]) -> list[Record]:
    """Lay the items of instances over their data.

    What has ended, or has no such block, costs nothing; all others together cost one query.

    Args:
        plan_of: By instance; those without one are given as they are.
    """
    may_show = {r.instance.id for r in records if not r.instance.state.is_terminal}
    asked = [instance_id for instance_id in may_show if instance_id in plan_of and plan_of[instance_id].item_vars]
    items = tx.items_in_progress(asked) if asked else {}
    return [
        _with_items(r, plan_of[r.instance.id], items[r.instance.id]) if r.instance.id in items else r for r in records
    ]


def _with_items(record: Record, plan: Plan, items: Sequence[tuple[NodeKey, Any]]) -> Record:
    """Lay items over the data of an instance: the inner ones, which come last, over the outer ones."""
    bound = {plan.item_vars[key.block_id]: item for key, item in items if key.block_id in plan.item_vars}
    if not bound:
        return record
    return replace(record, profile=replace(record.profile, data=merged(record.profile.data, bound)))
