"""Instances, what they were given, and how they look from outside."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.core.beginning import Beginning
from orchestrator.core.changes import (
    CheckpointSaved,
    ContextPut,
    ItemsCaptured,
    MetadataMerged,
    NodePut,
    SessionMemberGone,
    SessionWritten,
    StepGone,
    TimerPut,
    TransitionRecorded,
)
from orchestrator.core.model import BESIDE, Instance, Node, NodeKey
from orchestrator.core.slice import Needs
from orchestrator.core.states import InstanceState, NodeState, StepState
from orchestrator.store.creations import Alike, Member
from orchestrator.store.instances import IdempotencyKey, Profile
from tests.integration.store_conformance.house import KEY, House, put


def test_an_instance_is_read_as_it_was_written(house: House) -> None:
    flow = house.instance(budget={"tokens": 5})
    changed = put(flow, running=2, parked_reason="why", current_step="a", started_at=flow.created_at)
    house.write(flow, changed)
    with house.store.transaction() as tx:
        assert tx.load_instances([flow.id, uuid4()]) == {flow.id: changed.instance}
        now, locked = tx.lock_and_load([uuid4(), flow.id])
        assert locked == {flow.id: changed.instance}
        assert abs(now - tx.now()) < timedelta(seconds=10)
        assert tx.lock_and_load([uuid4()])[1] == {}


def beginning_of(house: House, pattern: Instance) -> Beginning:
    """Give how instances begin that are like one: with a step, a timer and an audit row."""
    now = house.now()
    opened = house.step(pattern, state=StepState.DELAYED, wake_at=now, timeout=timedelta(seconds=5))
    audit = TransitionRecorded(
        id=uuid4(), from_state="running", to_state="waiting", block_id=None, details={"d": 1}, created_at=now
    )
    return Beginning(instance=pattern, step=opened, timers=(TimerPut(key=KEY, due_at=now),), transitions=(audit,))


def members_of(house: House, *profiles: Profile) -> list[Member]:
    return [Member(house.new_id(), uuid4(), uuid4(), (uuid4(),), profile) for profile in profiles]


def check_stored(house: House, group: Alike) -> None:
    """Compare what is stored of instances with how they were to begin."""
    pattern, opened = group.beginning.instance, group.beginning.step
    assert opened is not None
    for number, member in enumerate(group.members):
        stored = replace(pattern, id=member.id, run_id=member.run_id)
        found = house.slice(stored, Needs(steps=frozenset({KEY}), timers=frozenset({KEY}), context=True, metadata=True))
        assert found.instance == stored
        hinted_at = pattern.updated_at if number < group.hinted else None
        assert found.steps[KEY] == replace(opened, id=member.step_id, hinted_at=hinted_at)
        assert found.timers[KEY] == group.beginning.timers[0].due_at
        profile = member.profile
        assert (found.sections().data, found.sections().config) == (profile.data, profile.config)
        assert found.profile_metadata() == profile.metadata


PROFILES = (
    *(Profile(data={"n": n}, config={"c": n}, metadata={"m": n}, audit=[{"n": n}]) for n in range(3)),
    Profile(),
)


def test_instances_that_begin_alike_are_stored_each_with_its_own(house: House) -> None:
    pattern = house.instance(version=1, budget={"max_steps": 3}, session_id=uuid4(), current_step="a")
    group = Alike(beginning=beginning_of(house, pattern), members=members_of(house, *PROFILES), hinted=2)
    with house.store.transaction() as tx:
        tx.insert_alike([group])
    check_stored(house, group)


def test_instances_that_are_inserted_at_once_are_committed(house: House) -> None:
    pattern = house.instance(version=1, current_step="a")
    group = Alike(beginning=beginning_of(house, pattern), members=members_of(house, *PROFILES), hinted=1)
    seen = house.head(pattern)
    with house.store.transaction() as tx:
        written = tx.insert_at_once([group], [seen])
    assert written is not None
    assert written.is_current
    assert abs(written.now - house.now()) < timedelta(minutes=1)
    check_stored(house, group)


def test_api_8_keys_are_taken_with_the_instances_that_are_inserted_at_once(house: House) -> None:
    pattern = house.instance(version=1)
    names = [str(uuid4()) for _ in range(2)]
    group = Alike(
        beginning=beginning_of(house, pattern),
        members=members_of(house, *(Profile(idempotency_key=name) for name in names), Profile()),
    )
    seen = house.head(pattern)
    with house.store.transaction() as tx:
        written = tx.insert_at_once([group], [seen])
    assert written is not None
    assert written.is_current
    keys = [IdempotencyKey("t", False, name) for name in names]
    with house.store.transaction() as tx:
        assert tx.reserve_keys({key: uuid4() for key in keys}) == {
            key: member.id for key, member in zip(keys, group.members, strict=False)
        }


@pytest.mark.parametrize("hours", [-1, 1])
def test_instances_that_begin_at_another_moment_than_now_are_not_inserted_at_once(house: House, hours: int) -> None:
    pattern = house.instance(version=1)
    at_another = replace(pattern, created_at=pattern.created_at + timedelta(hours=hours))
    group = Alike(beginning=beginning_of(house, at_another), members=members_of(house, Profile()))
    seen = house.head(pattern)
    with house.store.transaction() as tx:
        written = tx.insert_at_once([group], [seen])
    assert written is not None
    assert not written.is_current
    with house.store.transaction() as tx:
        assert tx.load_instances([group.members[0].id]) == {}


@pytest.mark.parametrize("why", ["gone", "deprecated", "another tenant's", "key taken"])
def test_instances_whose_sequence_or_key_is_not_as_it_was_seen_are_not_inserted_at_once(house: House, why: str) -> None:
    pattern, known = house.instance(version=1), house.instance()
    taken, free = IdempotencyKey("t", False, str(uuid4())), IdempotencyKey("t", False, str(uuid4()))
    seen = house.head(pattern)
    match why:
        case "gone":
            seen = replace(seen, id=uuid4())
        case "deprecated":
            seen = replace(seen, deprecated=True)
        case "another tenant's":
            seen = replace(seen, tenant_id="u")
        case _:
            with house.store.transaction() as tx:
                tx.reserve_keys({taken: known.id})
    profiles = [Profile(idempotency_key=(taken if why == "key taken" else free).key), Profile(data={"n": 1})]
    if why == "key taken":
        profiles.append(Profile(idempotency_key=free.key))
    group = Alike(beginning=beginning_of(house, pattern), members=members_of(house, *profiles), hinted=1)
    other = house.head(known)
    with house.store.transaction() as tx:
        written = tx.insert_at_once([group], [other, seen])
    assert written is not None
    assert not written.is_current
    with house.store.transaction() as tx:
        assert tx.load_instances([member.id for member in group.members]) == {}
        assert not [due for due in tx.due_timers(10_000) if due.instance_id in {m.id for m in group.members}]
        assert tx.reserve_keys({free: known.id}) == {}
    again = replace(group, members=members_of(house, Profile()))
    with house.store.transaction() as tx:
        tx.insert_alike([again])
    check_stored(house, again)  # the next transaction of the connection writes


def test_api_8_idempotency_keys_belong_to_the_first_of_a_tenant(house: House) -> None:
    first, second, name = uuid4(), uuid4(), str(uuid4())
    mine, theirs = IdempotencyKey("t", False, name), IdempotencyKey("u", False, name)
    with house.store.transaction() as tx:
        assert tx.reserve_keys({}) == {}
        assert tx.reserve_keys({mine: first}) == {}
        assert tx.reserve_keys({mine: second, theirs: second}) == {mine: first}
        assert tx.reserve_keys({mine._replace(dry_run=True): second}) == {}
        assert tx.reserve_keys({theirs: first}) == {theirs: second}


def test_contexts_and_audit_are_read_as_given(house: House) -> None:
    flow = house.instance(profile=Profile(data=[1, "x"], config=None, audit=[{"who": "me"}]))
    found = house.slice(flow, Needs(context=True))
    assert (found.context, found.audit) == (ContextPut(data=[1, "x"], config=None), [{"who": "me"}])
    house.write(flow, ContextPut(data={"new": 1}, config={}))
    assert house.slice(flow, Needs(context=True)).context == ContextPut(data={"new": 1}, config={})


def test_metadata_are_merged_over_what_the_client_gave(house: House) -> None:
    flow = house.instance(profile=Profile(metadata={"a": 1, "b": 1}))
    house.write(flow, MetadataMerged(values={"b": 2}))
    assert house.slice(flow, Needs(metadata=True)).profile_metadata() == {"a": 1, "b": 2}


def test_s8_6_writers_of_a_session_are_folded_into_its_newest_data(house: House) -> None:
    session = uuid4()
    house.open_session(session, {"a": 1, "gone": 1})
    flow, other, bound_to_none = (
        house.instance(session_id=session),
        house.instance(session_id=session),
        house.instance(),
    )
    with house.store.transaction() as tx:
        first = SessionWritten(session_id=session, path=("b", "c"), value=2)
        second = SessionMemberGone(session_id=session, name="gone")
        tx.write([(flow, (first,)), (other, (second, SessionWritten(session_id=uuid4(), path=("x",), value=1)))])
        assert tx.session_data(other.id) == {"a": 1, "b": {"c": 2}}
        assert tx.session_data(bound_to_none.id) is None
    assert house.slice(flow, Needs(session=True)).session_data() == {"a": 1, "b": {"c": 2}}


def test_checkpoints_are_pruned_as_they_say(house: House) -> None:
    flow = house.instance()
    now = house.now()
    for number in range(4):
        at = now + timedelta(seconds=number)
        house.write(flow, CheckpointSaved(id=uuid4(), data=number, created_at=at, keep=2 if number == 3 else None))
    with house.store.transaction() as tx:
        assert [row[1] for row in tx.newest_checkpoints(flow.id, 10)] == [3, 2]
        assert [row[1] for row in tx.newest_checkpoints(flow.id, 1)] == [3]


def test_a_look_at_an_instance_names_its_newest_block(house: House) -> None:
    flow = house.instance()
    now = house.now()

    def newest() -> tuple[Any, Any]:
        with house.store.transaction() as tx:
            assert tx.look_at(flow.id, "another tenant") is None
            seen = tx.look_at(flow.id, "t")
        assert seen is not None
        assert (seen.record.profile.data, seen.record.instance.id) == ({"n": 1}, flow.id)
        return seen.newest_block, seen.ended_at

    assert newest() == (None, None)
    around = Node(key=NodeKey("p"), state=NodeState.RUNNING, started_at=now)
    waits = Node(key=NodeKey("call"), state=NodeState.WAITING, started_at=now)
    house.write(flow, NodePut(node=around), NodePut(node=waits))
    assert newest() == ("call", None)
    house.step(flow, entered_at=now)
    house.step(flow, NodeKey("aside", (BESIDE,)), entered_at=now + timedelta(seconds=1))
    assert newest() == ("a", None)
    done = [
        replace(each, state=NodeState.COMPLETED, completed_at=now + timedelta(seconds=5)) for each in (around, waits)
    ]
    ended = replace(done[1], started_at=now + timedelta(seconds=1))
    house.write(flow, NodePut(node=done[0]), NodePut(node=ended), StepGone(key=KEY))
    final = put(flow, state=InstanceState.COMPLETED)
    house.write(flow, final)
    assert newest() == ("call", final.instance.updated_at)


def test_items_in_progress_are_those_of_for_eachs_with_just_one(house: House) -> None:
    flow, now = house.instance(), house.now()

    def for_each(key: NodeKey, state: NodeState = NodeState.RUNNING, **memory: int) -> tuple[NodePut, ItemsCaptured]:
        return NodePut(node=Node(key=key, state=state, started_at=now, memory=memory)), ItemsCaptured(
            key=key, items=(f"{key.block_id}0", f"{key.block_id}1")
        )

    outer, inner = NodeKey("z"), NodeKey("a", (1,))
    house.write(
        flow,
        *for_each(inner, next=1, open=1),
        *for_each(outer, next=2, open=1),
        *for_each(NodeKey("two"), next=2, open=2),
        *for_each(NodeKey("between"), next=1, open=0),
        *for_each(NodeKey("ended"), NodeState.FAILED, next=1, open=1),
        NodePut(node=Node(key=NodeKey("p"), state=NodeState.RUNNING, started_at=now, memory={"open": 1})),
    )
    with house.store.transaction() as tx:
        assert tx.items_in_progress([flow.id, uuid4()]) == {flow.id: [(outer, "z1"), (inner, "a0")]}
        assert tx.items_in_progress([]) == {}
