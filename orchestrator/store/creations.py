"""Writing new instances, as they are after their first decision.

Most instances that are created together differ in a few columns only. Those go to the server as one array for each
column; what all of them share is sent once, and the statement is one the server keeps.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from orchestrator.core.beginning import Beginning
from orchestrator.core.model import Instance
from orchestrator.store import definitions, instances, payloads
from orchestrator.store.definitions import Head
from orchestrator.store.fence import Written, committed, expect_now
from orchestrator.store.instances import IdempotencyKey, Profile
from orchestrator.store.prepared import MAY_WRITE, Form, array_of, form, prepared
from orchestrator.store.rows import (
    INSTANCE_ROW,
    STEP_ROW,
    TRANSITION_ROW,
    instance_row,
    names_of,
    step_row,
    transition_row,
)
from orchestrator.store.sealing import private, private_of
from orchestrator.store.session import Transaction, to_json

Row = tuple[Any, ...]

AT_ONCE = 1000
"""Rows of one statement."""


class Member(NamedTuple):
    """What one of several instances that begin alike has for itself."""

    id: UUID
    run_id: UUID
    step_id: UUID
    transition_ids: Sequence[UUID]
    profile: Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """New instances that begin alike.

    Args:
        hinted: For so many of their steps, the first ones, a hint is about to be sent.
    """

    beginning: Beginning
    members: Sequence[Member]
    hinted: int = 0


@dataclass(frozen=True, slots=True)
class _Stamp:
    """A statement that inserts rows of which most columns are the same.

    Args:
        shared: Positions, in a row, of the columns that all rows share; they are the first parameters. The others are
            given as arrays, of which a short one is filled up with NULL.
    """

    form: Form
    shared: tuple[int, ...]

    @classmethod
    def of(cls, table: str, row: str, own: Sequence[str]) -> "_Stamp":
        columns = [column.split() for column in row.split(", ")]
        shared = [position for position, (name, _) in enumerate(columns) if name not in own]
        places = {columns[position][0]: f"${number}" for number, position in enumerate(shared, 1)}
        arrays = ", ".join(f"${number}" for number in range(len(shared) + 1, len(columns) + 1))
        values = ", ".join(places.get(name, name) for name, _ in columns)
        kinds = dict(columns)
        types = [columns[position][1] for position in shared] + [f"{kinds[name]}[]" for name in own]
        statement = (
            f"INSERT INTO {table} ({names_of(row)}) SELECT {values} FROM unnest({arrays}) AS own ({', '.join(own)}) "
            f"WHERE {MAY_WRITE}"
        )
        return cls(form(f"stamp_{table}", types, statement), tuple(shared))

    def send(self, tx: Transaction, row: Sequence[Any], own: Iterable[Iterable[Any]]) -> None:
        tx.tell(self.form, [*(row[position] for position in self.shared), *map(array_of, own)])


_INSTANCES = _Stamp.of("instances", INSTANCE_ROW, ("id", "run_id"))
_STEPS = _Stamp.of("steps", f"instance_id uuid, {STEP_ROW}", ("instance_id", "id", "hinted_at"))
_TIMERS = _Stamp.of("timers", "instance_id uuid, block_id text, iteration int[], due_at timestamptz", ("instance_id",))
_TRANSITIONS = _Stamp.of("transitions", TRANSITION_ROW, ("instance_id", "id"))
_INSERT_INSTANCES = prepared("insert_instances", INSTANCE_ROW, "INSERT INTO instances ({columns}) SELECT * FROM {rows}")
_INSERT_PROFILES = prepared(
    "insert_profiles",
    "instance_id uuid, data json, config json, metadata jsonb, audit json, idempotency_key text, concurrency_key text, "
    "max_concurrency int, parent_instance_id uuid",
    "INSERT INTO contexts ({columns}) SELECT * FROM {rows}",
)


def insert_alike(tx: Transaction, groups: Iterable[Alike]) -> None:
    """Insert instances that begin alike, and their steps and timers.

    Raises:
        SequenceGone: A sequence has been deleted.
    """
    groups = list(groups)
    profiles, apart = _profile_rows(tx, groups)
    _put_alike(tx, groups, profiles)
    payloads.put(tx, apart)
    definitions.hold(tx, (group.beginning.instance.sequence_id for group in groups))


def insert_at_once(tx: Transaction, groups: Iterable[Alike], seen: Iterable[Head]) -> Written | None:
    """Insert instances that begin alike, and commit them, in one message.

    Only if it is about the moment they begin at, their sequences are as they were seen, and their idempotency keys
    free. Large values, which are stored apart, are not written so.
    """
    groups = list(groups)
    profiles, apart = _profile_rows(tx, groups)
    if apart or not tx.may_end_at_once:
        return None
    keys = keys_of(groups)
    expect_now(tx, {group.beginning.instance.created_at for group in groups})
    instances.expect_free_keys(tx, keys)
    definitions.hold_as_seen(tx, seen)
    instances.take_keys(tx, keys)
    _put_alike(tx, groups, profiles)
    return committed(tx)


def keys_of(groups: Iterable[Alike]) -> dict[IdempotencyKey, UUID]:
    """Give the idempotency keys of new instances, each with the instance that wants it."""
    return {
        IdempotencyKey(group.beginning.instance.tenant_id, group.beginning.instance.dry_run, key): member.id
        for group in groups
        for member in group.members
        if (key := member.profile.idempotency_key) is not None
    }


def _put_alike(tx: Transaction, groups: Iterable[Alike], profiles: Sequence[Row]) -> None:
    for group in groups:
        for start in range(0, len(group.members), AT_ONCE):
            _stamp(tx, group.beginning, group.members[start : start + AT_ONCE], max(0, group.hinted - start))
    _put_profiles(tx, profiles)


def _stamp(tx: Transaction, beginning: Beginning, members: Sequence[Member], hinted: int) -> None:
    ids, run_ids, step_ids, transition_ids, _ = zip(*members, strict=True)
    owner, step = beginning.instance.id, beginning.step
    _INSTANCES.send(tx, instance_row(beginning.instance), (ids, run_ids))
    if step is not None:
        hinted_at = [beginning.instance.updated_at] * min(hinted, len(members))
        _STEPS.send(tx, step_row(owner, step), (ids, step_ids, hinted_at))
    for timer in beginning.timers:
        row = (owner, timer.key.block_id, list(timer.key.iteration), timer.due_at)
        _TIMERS.send(tx, row, (ids,))
    for change, change_ids in zip(beginning.transitions, zip(*transition_ids, strict=True), strict=True):
        _TRANSITIONS.send(tx, transition_row(beginning.instance, change), (ids, change_ids))


def insert(tx: Transaction, new: Sequence[tuple[Instance, Profile]]) -> None:
    """Insert the rows of new instances, each as it reads; whatever else they have is written after it.

    Raises:
        SequenceGone: A sequence has been deleted.
    """
    for start in range(0, len(new), AT_ONCE):
        part = new[start : start + AT_ONCE]
        tx.put(_INSERT_INSTANCES, [instance_row(instance) for instance, _ in part])
    apart: payloads.Rows = []
    _put_profiles(tx, [_profile_row(tx, instance.id, profile, apart) for instance, profile in new])
    payloads.put(tx, apart)
    definitions.hold(tx, (instance.sequence_id for instance, _ in new))


def _profile_rows(tx: Transaction, groups: Iterable[Alike]) -> tuple[list[Row], payloads.Rows]:
    """Write what instances were given as rows; beside them those of what is stored apart of it."""
    apart: payloads.Rows = []
    members = (member for group in groups for member in group.members)
    return [_profile_row(tx, member.id, member.profile, apart) for member in members], apart


def _put_profiles(tx: Transaction, rows: Sequence[Row]) -> None:
    for start in range(0, len(rows), AT_ONCE):
        tx.put(_INSERT_PROFILES, rows[start : start + AT_ONCE])


def _profile_row(tx: Transaction, owner: UUID, profile: Profile, apart: payloads.Rows) -> Row:
    split = tx.apart.split_data(profile.data)
    if split.apart:
        apart += payloads.rows(owner, split.apart)
    return (
        owner,
        private_of(owner, split.text),
        private(profile.config),
        to_json(profile.metadata),
        private(profile.audit) if profile.audit else None,
        profile.idempotency_key,
        profile.concurrency_key,
        profile.max_concurrency,
        profile.parent_instance_id,
    )
