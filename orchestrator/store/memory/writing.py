"""Writing what was decided; the twin of `orchestrator.store.apply`, and of creation in `instances`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import assert_never
from uuid import UUID

from orchestrator.core.changes import (
    AttemptRecorded,
    BlocksForgotten,
    Change,
    CheckpointSaved,
    ChildCreated,
    ContextPut,
    DefinitionHeld,
    ErrorRowsRemoved,
    InjectionAdded,
    InstancePut,
    ItemsCaptured,
    LetterOpened,
    LetterWritten,
    LineLogged,
    MetadataMerged,
    NodePut,
    OutputAdded,
    OutputsTrimmed,
    PlanReplaced,
    SessionMemberGone,
    SessionWritten,
    SignalConsumed,
    SignalKept,
    StateGone,
    StatePut,
    StepGone,
    StepPut,
    TimerGone,
    TimerPut,
    TimersShifted,
    TransitionRecorded,
    UsageRecorded,
    WebhookQueued,
)
from orchestrator.core.model import BESIDE, Claim, Instance, ItemKey, NodeKey, Step, names_of_output
from orchestrator.core.shared import folded
from orchestrator.store.creations import Alike, keys_of
from orchestrator.store.definitions import Head
from orchestrator.store.fence import MOST_APART, Written
from orchestrator.store.instances import IdempotencyKey, Profile
from orchestrator.store.memory import letters
from orchestrator.store.memory.base import Base
from orchestrator.store.memory.reading import lock
from orchestrator.store.memory.tables import (
    CheckpointRow,
    ContextRow,
    OutputRow,
    Rows,
    SignalRow,
    StepRow,
    from_text,
    to_text,
)

ERROR_REF = "__error__"


def insert_instances(tx: Base, new: Sequence[tuple[Instance, Profile]]) -> None:
    """Insert new instances, each as it reads; whatever else they have is written after it."""
    for instance, profile in new:
        rows = Rows()
        rows.instance[None] = instance
        rows.context[None] = ContextRow(
            data=to_text(profile.data),
            config=to_text(profile.config),
            audit=to_text(profile.audit or None),
            metadata=to_text(profile.metadata),
        )
        tx.journal.insert(tx.tables.instances, instance.id, rows)


def insert_alike(tx: Base, groups: Iterable[Alike]) -> None:
    """Insert new instances that begin alike, as they are after their first decision."""
    for group in groups:
        beginning = group.beginning
        for number, member in enumerate(group.members):
            instance = replace(beginning.instance, id=member.id, run_id=member.run_id)
            insert_instances(tx, [(instance, member.profile)])
            changes: list[Change] = list(beginning.timers)
            if beginning.step is not None:
                hinted_at = instance.updated_at if number < group.hinted else None
                changes.append(StepPut(step=replace(beginning.step, id=member.step_id, hinted_at=hinted_at)))
            for change, change_id in zip(beginning.transitions, member.transition_ids, strict=True):
                changes.append(replace(change, id=change_id))
            write(tx, [(instance, changes)])


def insert_at_once(tx: Base, groups: Iterable[Alike], seen: Iterable[Head]) -> Written:
    """Insert new instances that begin alike, if they do so now, with free keys, of sequences as they were seen."""
    groups = list(groups)
    keys, definitions, now = keys_of(groups), tx.tables.definitions, tx.now()
    is_current = (
        all(abs(group.beginning.instance.created_at - now) <= MOST_APART for group in groups)
        and tx.tables.keys.keys().isdisjoint(keys)
        and all(
            (found := definitions.get(head.id)) is not None
            and (found.tenant_id, found.deprecated) == (head.tenant_id, head.deprecated)
            for head in seen
        )
    )
    if is_current:
        reserve_keys(tx, keys)
        insert_alike(tx, groups)
    return Written(is_current=is_current, now=now)


def reserve_keys(tx: Base, wanted: Mapping[IdempotencyKey, UUID]) -> dict[IdempotencyKey, UUID]:
    """Take idempotency keys for new instances; gives the instances that had some of them already."""
    known = {key: tx.tables.keys[key] for key in wanted if key in tx.tables.keys}
    for key in wanted.keys() - known.keys():
        tx.journal.put(tx.tables.keys, key, wanted[key])
    return known


def copy_rows(tx: Base, source_id: UUID, copy_id: UUID, blocks: Sequence[str], new_id: Callable[[], UUID]) -> None:
    """Give a new instance what another one has; see the interface."""
    source, rows, put = tx.tables.instances[source_id], tx.tables.instances[copy_id], tx.journal.put
    for key, node in source.nodes.items():
        if key.block_id in blocks and node.state.is_terminal:
            put(rows.nodes, key, node)
    for item, text in source.items.items():
        if item.node.block_id in blocks:
            put(rows.items, item, text)
    for number, injection in source.injections.items():
        put(rows.injections, number, injection)
    for name, text in source.state.items():
        put(rows.state, name, text)
    for _, row in sorted(source.outputs.items()):
        former = row.change
        if former.key.block_id in blocks and former.lane[:1] != (BESIDE,) and former.ref != ERROR_REF:
            _add_output(tx, rows, replace(former, id=new_id()))


def write(tx: Base, decided: Iterable[tuple[Instance, Iterable[Change]]]) -> None:
    """Write what was decided about instances."""
    for instance, changes in decided:
        rows = tx.tables.instances[instance.id]
        taken = tuple(changes)
        if any(isinstance(change, ErrorRowsRemoved) for change in taken):
            _remove_error_rows(tx, rows)
        for change in taken:
            _write(tx, rows, instance.id, change)


def write_at_once(
    tx: Base, instance: Instance, changes: Iterable[Change], *, found: int, claims: Sequence[Claim]
) -> Written | None:
    """Write what was decided about one instance, if its version and its claims are as they were found."""
    locked = lock(tx, [instance.id], [claim.step_id for claim in claims])
    is_current = locked.versions.get(instance.id) == found and all(claim.token in locked.held for claim in claims)
    if is_current:
        write(tx, [(instance, changes)])
    return Written(is_current=is_current, now=locked.now)


def _write(tx: Base, rows: Rows, owner: UUID, change: Change) -> None:  # noqa: PLR0912, PLR0915 - one case each
    put = tx.journal.put
    match change:
        case InstancePut(instance=instance):
            put(rows.instance, None, instance)
        case NodePut(node=node):
            put(rows.nodes, node.key, replace(node, memory=from_text(to_text(node.memory))))
        case StepPut(step=step):
            _put_step(tx, rows, owner, step)
        case StepGone(key=key):
            _drop_step(tx, rows, key)
        case TimerPut(key=key, due_at=due_at):
            put(rows.timers, key, due_at)
        case TimerGone(key=key):
            tx.journal.drop(rows.timers, key)
        case TimersShifted(keys=keys, by=by):
            _shift_timers(tx, rows, keys, by)
        case OutputAdded():
            _add_output(tx, rows, change)
        case AttemptRecorded():
            tx.journal.insert(rows.attempts, change.id, change)
        case TransitionRecorded():
            tx.journal.insert(rows.transitions, change.id, change)
        case ContextPut(data=data, config=config):
            put(rows.context, None, rows.context[None]._replace(data=to_text(data), config=to_text(config)))
        case StatePut(name=name, value=value):
            put(rows.state, name, to_text(value))
        case StateGone(name=name):
            tx.journal.drop(rows.state, name)
        case ItemsCaptured(key=key, items=items):
            for position, item in enumerate(items):
                tx.journal.insert(rows.items, ItemKey(key, position), to_text(item))
        case SignalKept(signal=signal):
            row = SignalRow(name=signal.name, payload=to_text(signal.payload), consumed_at=None)
            tx.journal.insert(rows.signals, signal.id, row)
        case SignalConsumed(id=signal_id):
            if signal_id in rows.signals:
                put(rows.signals, signal_id, rows.signals[signal_id]._replace(consumed_at=tx.now()))
        case SessionWritten() | SessionMemberGone():
            _write_session(tx, change)
        case CheckpointSaved():
            _save_checkpoint(tx, rows, change)
        case MetadataMerged(values=values):
            known = from_text(rows.context[None].metadata)
            merged = {**(known if isinstance(known, dict) else {}), **values}
            put(rows.context, None, rows.context[None]._replace(metadata=to_text(merged)))
        case InjectionAdded(injection=injection):
            tx.journal.insert(rows.injections, injection.number, injection)
        case PlanReplaced():
            pass  # the instance's row names the new definition
        case UsageRecorded():
            tx.journal.insert(rows.usage, change.id, change)
        case LineLogged():
            tx.journal.insert(rows.logs, change.id, change)
        case WebhookQueued():
            tx.journal.insert(rows.webhooks, change.id, change)
        case DefinitionHeld():
            pass  # nothing is ever deleted here
        case ChildCreated():
            letters.create_child(tx, change, rows)
        case LetterWritten(letter=letter):
            letters.write_letter(tx, letter)
        case LetterOpened(id=letter_id):
            letters.open_letter(tx, letter_id)
        case OutputsTrimmed():
            _trim_outputs(tx, rows, change)
        case BlocksForgotten(blocks=blocks):
            _forget(tx, rows, frozenset(blocks))
        case ErrorRowsRemoved():
            pass  # done before all others, as there: rows of the same commit stay
        case _:
            assert_never(change)


def _shift_timers(tx: Base, rows: Rows, keys: Iterable[NodeKey], by: timedelta) -> None:
    for key in keys:
        if key in rows.timers:
            tx.journal.put(rows.timers, key, rows.timers[key] + by)


def _put_step(tx: Base, rows: Rows, owner: UUID, step: Step) -> None:
    former = rows.steps.get(step.key)
    if former is not None and former.step.id != step.id:
        tx.journal.drop(tx.tables.places, former.step.id)
    output, memory = (None if value is None else to_text(value) for value in (step.output, step.memory))
    row = StepRow(step=step, output=output, memory=memory, heartbeat_at=step.claimed_at)
    tx.journal.put(rows.steps, step.key, row)
    tx.journal.put(tx.tables.places, step.id, (owner, step.key))


def _drop_step(tx: Base, rows: Rows, key: NodeKey) -> None:
    former = rows.steps.get(key)
    if former is not None:
        tx.journal.drop(rows.steps, key)
        tx.journal.drop(tx.tables.places, former.step.id)


def _add_output(tx: Base, rows: Rows, change: OutputAdded) -> None:
    tx.journal.insert(rows.outputs, change.id, OutputRow(change=change, text=to_text(change.output)))
    _note_newest(tx, rows, change)


def _note_newest(tx: Base, rows: Rows, change: OutputAdded) -> None:
    for name in names_of_output(change.key.block_id, change.lane):
        if name not in rows.newest or rows.newest[name] < change.id:
            tx.journal.put(rows.newest, name, change.id)


def _trim_outputs(tx: Base, rows: Rows, change: OutputsTrimmed) -> None:
    series: dict[str, list[UUID]] = {block_id: [] for block_id in change.blocks}
    for output_id, row in rows.outputs.items():
        if row.change.key.block_id in series and row.change.lane[: len(change.lane)] == change.lane:
            series[row.change.key.block_id].append(output_id)
    for output_ids in series.values():
        for old in sorted(output_ids)[: -change.keep]:
            if change.since is None or rows.outputs[old].change.key.iteration < change.since:
                tx.journal.drop(rows.outputs, old)


def _forget(tx: Base, rows: Rows, blocks: frozenset[str]) -> None:
    for key in [key for key in rows.nodes if key.block_id in blocks]:
        tx.journal.drop(rows.nodes, key)
    for item in [item for item in rows.items if item.node.block_id in blocks]:
        tx.journal.drop(rows.items, item)
    _drop_outputs(tx, rows, [i for i, row in rows.outputs.items() if row.change.key.block_id in blocks])


def _remove_error_rows(tx: Base, rows: Rows) -> None:
    _drop_outputs(tx, rows, [i for i, row in rows.outputs.items() if row.change.ref == ERROR_REF])


def _drop_outputs(tx: Base, rows: Rows, gone: Iterable[UUID]) -> None:
    for output_id in gone:
        tx.journal.drop(rows.outputs, output_id)
    for name in list(rows.newest):
        tx.journal.drop(rows.newest, name)
    for row in rows.outputs.values():
        _note_newest(tx, rows, row.change)


def _write_session(tx: Base, change: SessionWritten | SessionMemberGone) -> None:
    known = tx.tables.sessions.get(change.session_id)
    if known is not None:
        tx.journal.put(tx.tables.sessions, change.session_id, to_text(folded(from_text(known), change)))


def _save_checkpoint(tx: Base, rows: Rows, change: CheckpointSaved) -> None:
    row = CheckpointRow(data=to_text(change.data), created_at=change.created_at)
    tx.journal.insert(rows.checkpoints, change.id, row)
    if change.keep is not None:
        newest = sorted(rows.checkpoints, key=lambda i: (rows.checkpoints[i].created_at, i), reverse=True)
        for old in newest[change.keep :]:
            tx.journal.drop(rows.checkpoints, old)
