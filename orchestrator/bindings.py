"""Lays the items that for_eachs are at over `context.data` as clients read them (sequences contract §3.5).

The binding of an item is a scope, never written: steps see it because they are evaluated in it, clients because it is
laid over what they read. Of a for_each that may have several items in progress none is shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from orchestrator.core.plan import Plan
from orchestrator.core.sections import merged
from orchestrator.core.states import TERMINAL_INSTANCE_STATES
from orchestrator.slices import Plans
from orchestrator.store.instances import Record
from orchestrator.store.interface import Transaction
from orchestrator.store.pages import Listed
from orchestrator.store.session import to_json


class _Open(NamedTuple):
    """An open instance of a page, as its plan is looked for."""

    id: UUID
    sequence_id: UUID
    injected: int


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
    bound = _bound(tx, plan_of, [r.instance.id for r in records if not r.instance.state.is_terminal])
    return [_with_items(r, bound[r.instance.id]) if r.instance.id in bound else r for r in records]


def _with_items(record: Record, items: Mapping[str, Any]) -> Record:
    return replace(record, profile=record.profile._replace(data=merged(record.profile.data, items)))


def listed(tx: Transaction, plans: Plans, rows: Sequence[Listed]) -> list[Listed]:
    """Give the instances of a page as clients read them, as `shown` does."""
    open_ones = [row for row in rows if row.state not in TERMINAL_INSTANCE_STATES]
    if not open_ones:
        return list(rows)
    sequences = {text: UUID(text) for text in {row.sequence_id for row in open_ones}}
    planned = [_Open(UUID(row.id), sequences[row.sequence_id], row.injected) for row in open_ones]
    bound = _bound(tx, plans.of_instances(tx, planned), [each.id for each in planned])
    of_row = {str(each): items for each, items in bound.items()}
    return [row._replace(data=_laid_over(row.data, of_row[row.id])) if row.id in of_row else row for row in rows]


def _laid_over(data: str | None, items: Mapping[str, Any]) -> str:
    return to_json(merged(None if data is None else orjson.loads(data), items))


def _bound(tx: Transaction, plan_of: Mapping[UUID, Plan], open_ones: Iterable[UUID]) -> dict[UUID, dict[str, Any]]:
    """Read what the items of open instances are bound to, by the name of the variable.

    Inner items, which come last, go before outer ones.
    """
    asked = [each for each in open_ones if each in plan_of and plan_of[each].item_vars]
    found = tx.items_in_progress(asked) if asked else {}
    names = {each: plan_of[each].item_vars for each in found}
    bound = {
        each: {names[each][key.block_id]: item for key, item in items if key.block_id in names[each]}
        for each, items in found.items()
    }
    return {each: items for each, items in bound.items() if items}
