"""Loading what decisions need; the twin of `orchestrator.store.reading`."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.core.changes import ContextPut
from orchestrator.core.model import ROOT_KEY, Instance, ItemKey, KeptSignal, NodeKey, Shared, is_beside
from orchestrator.core.plan import Injection
from orchestrator.core.slice import ABSENT, Needs, Slice
from orchestrator.core.states import InstanceState, NodeState, StepState
from orchestrator.store.definitions import StoredDefinition
from orchestrator.store.instances import Profile, Record, Seen
from orchestrator.store.interface import Locked
from orchestrator.store.memory import letters
from orchestrator.store.memory.base import Base
from orchestrator.store.memory.tables import Rows, from_text
from orchestrator.store.reading import ITEMS_AHEAD

_OPEN = frozenset({NodeState.RUNNING, NodeState.WAITING})
_BROKEN = frozenset({NodeState.FAILED, NodeState.CANCELLED})


def lock(tx: Base, ids: Sequence[UUID], step_ids: Sequence[UUID]) -> Locked:
    """Tell the versions of instances, and which steps are claimed; nobody else is here to lock out."""
    tables = tx.tables
    places = [tables.places[step_id] for step_id in step_ids if step_id in tables.places]
    steps = [tables.instances[owner].steps[key].step for owner, key in places]
    return Locked(
        now=tx.now(),
        versions={i: found.version for i, found in load_instances(tx, ids).items()},
        held=frozenset(s.token for s in steps if s.state is StepState.CLAIMED and s.token is not None),
    )


def lock_and_load(tx: Base, ids: Sequence[UUID]) -> tuple[datetime, dict[UUID, Instance]]:
    """Load instances, with the time; nobody else is here to lock out."""
    return tx.now(), load_instances(tx, ids)


def load_instances(tx: Base, ids: Iterable[UUID]) -> dict[UUID, Instance]:
    """Load instances; ids that do not exist are left out."""
    return {i: tx.tables.instances[i].instance[None] for i in ids if i in tx.tables.instances}


def look_at(tx: Base, instance_id: UUID, tenant_id: str) -> Seen | None:
    """Read what another instance may see of one; None if there is none in this tenant."""
    rows = tx.tables.instances.get(instance_id)
    if rows is None or rows.instance[None].tenant_id != tenant_id:
        return None
    instance = rows.instance[None]
    return Seen(record=_record(rows), ended_at=_ended_at(rows, instance), newest_block=_newest_block(rows, instance))


def _record(rows: Rows) -> Record:
    instance, row = rows.instance[None], rows.context[None]
    due = {key: due_at for key, due_at in rows.timers.items() if not is_beside(key)}
    attempts = [row.step.attempt for key, row in rows.steps.items() if key.block_id == instance.current_step]
    return Record(
        instance=instance,
        profile=Profile(
            data=from_text(row.data),
            config=from_text(row.config),
            metadata=from_text(row.metadata),
            audit=from_text(row.audit),
            parent_instance_id=None if instance.parent is None else instance.parent.instance_id,
        ),
        due_at=due.get(ROOT_KEY, min(due.values(), default=None))
        if instance.state is InstanceState.SCHEDULED
        else None,
        attempt=max(attempts, default=0),
    )


def _ended_at(rows: Rows, instance: Instance) -> datetime | None:
    if not instance.state.is_terminal:
        return None
    moves = [move.created_at for move in rows.transitions.values() if move.to_state == instance.state.value]
    return max(moves, default=instance.updated_at)


def _newest_block(rows: Rows, instance: Instance) -> str | None:
    nodes = rows.nodes.values()
    if instance.state.is_terminal:
        ended = [(n.completed_at, n.started_at or n.completed_at, n.key.block_id) for n in nodes if n.completed_at]
        return max(ended)[2] if ended else None
    began = [(row.step.entered_at, 2, key.block_id) for key, row in rows.steps.items() if not is_beside(key)]
    began += [
        (n.started_at, n.state is NodeState.WAITING, n.key.block_id) for n in nodes if n.started_at and n.state in _OPEN
    ]
    return max(began)[2] if began else None


def items_in_progress(tx: Base, instance_ids: Sequence[UUID]) -> dict[UUID, list[tuple[NodeKey, Any]]]:
    """Read the items of open for_eachs that have just one in progress, outer ones and older ones first."""
    found = {i: _items_in_progress(tx.tables.instances[i]) for i in instance_ids if i in tx.tables.instances}
    return {i: items for i, items in found.items() if items}


def _items_in_progress(rows: Rows) -> list[tuple[NodeKey, Any]]:
    one_item = [n for n in rows.nodes.values() if n.state in _OPEN and "next" in n.memory and n.memory["open"] == 1]
    one_item.sort(key=lambda node: (len(node.key.iteration), node.started_at, node.key.block_id))
    return [(node.key, from_text(rows.items[ItemKey(node.key, node.memory["next"] - 1)])) for node in one_item]


def load_definitions(tx: Base, ids: Sequence[UUID]) -> dict[UUID, StoredDefinition]:
    """Read versions of sequences by id; unknown ids are left out."""
    return {i: tx.tables.definitions[i] for i in ids if i in tx.tables.definitions}


def load_injections(tx: Base, instance_ids: Sequence[UUID]) -> dict[UUID, list[Injection]]:
    """Read what was injected into instances, in order; instances without any are left out."""
    found = {i: tx.tables.instances[i].injections for i in instance_ids if i in tx.tables.instances}
    return {i: [made[number] for number in sorted(made)] for i, made in found.items() if made}


def fill(tx: Base, wanted: Sequence[tuple[Slice, Needs]], *, lock: bool = False) -> None:
    """Put into each slice what it needs; what does not exist is marked as absent."""
    for current, needs in wanted:
        rows = tx.tables.instances.get(current.instance.id, Rows())
        current.nodes.update({key: rows.nodes.get(key) for key in needs.nodes})
        current.steps.update({key: rows.steps[key].read() if key in rows.steps else None for key in needs.steps})
        current.timers.update({key: rows.timers.get(key) for key in needs.timers})
        _fill_outputs(current, needs, rows)
        _fill_state(current, needs, rows)
        _fill_items(current, needs, rows)
        _fill_context(tx, current, needs, rows)
        _fill_session(tx, current, needs)
        _fill_signals(current, needs, rows)
        _fill_open_work(current, needs, rows)
        letters.fill(tx, current, needs)
        _fill_row_counts(current, needs, rows)


def _fill_outputs(current: Slice, needs: Needs, rows: Rows) -> None:
    for key in needs.outputs:
        newest = rows.newest.get(key)
        current.outputs[key] = ABSENT if newest is None else rows.outputs[newest].output


def _fill_state(current: Slice, needs: Needs, rows: Rows) -> None:
    known = frozenset(current.state)
    for name in needs.state - known:
        current.state[name] = from_text(rows.state[name]) if name in rows.state else ABSENT
    if needs.whole_state:
        current.whole_state = True
        for name, text in rows.state.items():
            if name not in known:
                current.state[name] = from_text(text)


def _fill_items(current: Slice, needs: Needs, rows: Rows) -> None:
    for first in needs.items:
        for position in range(first.position, first.position + ITEMS_AHEAD):
            key = ItemKey(first.node, position)
            if key in rows.items:
                current.items[key] = from_text(rows.items[key])


def _fill_context(tx: Base, current: Slice, needs: Needs, rows: Rows) -> None:
    if needs.metadata:
        current.metadata = from_text(rows.context[None].metadata)
    if not (needs.context or needs.audit):
        return
    context, current.audit = context_and_audit(tx, current.instance.id)
    if current.context is None:
        current.context = context


def context_and_audit(tx: Base, instance_id: UUID) -> tuple[ContextPut, Any]:
    """Read the context of an instance."""
    row = tx.tables.instances[instance_id].context[None]
    return ContextPut(data=from_text(row.data), config=from_text(row.config)), from_text(row.audit)


def _fill_session(tx: Base, current: Slice, needs: Needs) -> None:
    if needs.session:
        text = tx.tables.sessions.get(current.instance.session_id) if current.instance.session_id else None
        current.session = Shared(data=None if text is None else from_text(text))


def _fill_row_counts(current: Slice, needs: Needs, rows: Rows) -> None:
    found = [row.change.key.block_id for row in rows.outputs.values()]
    current.row_counts.update({block_id: found.count(block_id) for block_id in needs.rows_of})


def _fill_signals(current: Slice, needs: Needs, rows: Rows) -> None:
    if needs.signals:
        current.signals = {
            i: KeptSignal(id=i, name=row.name, payload=from_text(row.payload))
            for i, row in sorted(rows.signals.items())
            if row.consumed_at is None
        }


def _fill_open_work(current: Slice, needs: Needs, rows: Rows) -> None:
    if needs.open_work:
        current.steps = {**{key: row.read() for key, row in rows.steps.items()}, **current.steps}
        current.open_work = True
    if needs.open_work or needs.ended_badly:
        states = _OPEN if needs.open_work else _BROKEN
        current.nodes = {**{k: node for k, node in rows.nodes.items() if node.state in states}, **current.nodes}
        current.ended_badly = current.ended_badly or needs.ended_badly


def state_values(tx: Base, instance_id: UUID) -> dict[str, Any]:
    """Read the whole key-value state of an instance."""
    rows = tx.tables.instances.get(instance_id, Rows())
    return {name: from_text(text) for name, text in rows.state.items()}


def session_data(tx: Base, instance_id: UUID) -> Any:
    """Read the data of the session that an instance is bound to; None if it is bound to none."""
    found = load_instances(tx, [instance_id]).get(instance_id)
    text = tx.tables.sessions.get(found.session_id) if found is not None and found.session_id is not None else None
    return None if text is None else from_text(text)


def newest_checkpoints(tx: Base, instance_id: UUID, limit: int) -> list[tuple[UUID, Any, datetime]]:
    """Read checkpoints of an instance, the newest first: id, data, created_at."""
    rows = tx.tables.instances.get(instance_id, Rows()).checkpoints
    newest = sorted(rows, key=lambda i: (rows[i].created_at, i), reverse=True)[:limit]
    return [(i, from_text(rows[i].data), rows[i].created_at) for i in newest]
