"""What each verb promises, kept by both stores."""

import inspect
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.core.beginning import Beginning
from orchestrator.core.changes import (
    AttemptRecorded,
    BlocksForgotten,
    CheckpointSaved,
    ChildCreated,
    ContextPut,
    ErrorRowsRemoved,
    InjectionAdded,
    ItemsCaptured,
    LetterOpened,
    LetterWritten,
    MetadataMerged,
    NodePut,
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
    TransitionRecorded,
)
from orchestrator.core.letters import Letter, SignalSent
from orchestrator.core.model import (
    BESIDE,
    ROOT_KEY,
    Claim,
    Instance,
    ItemKey,
    KeptSignal,
    Node,
    NodeKey,
    OutputKey,
    Parent,
    SequenceName,
)
from orchestrator.core.plan import Injection, Plan
from orchestrator.core.slice import ABSENT, Needs, Slice
from orchestrator.core.states import InstanceState, NodeState, StepState
from orchestrator.store import interface
from orchestrator.store.creations import Alike, Member
from orchestrator.store.effects import EffectDone
from orchestrator.store.instances import IdempotencyKey, Profile
from orchestrator.store.memory import MemoryTransaction
from orchestrator.store.postgres import PostgresTransaction
from orchestrator.store.steps import Worker
from sequences.document import parse_blocks
from sequences.signals import Custom
from tests.integration.store_conformance.house import KEY, House, output, put
from tests.support.drive import definition_of, step

NEWEST = OutputKey("a", ())
ALL = ["noop"]


class Stop(Exception):
    """Breaks a transaction off."""


def verbs(protocol: type) -> set[str]:
    return {name for name, member in vars(protocol).items() if inspect.isfunction(member) and name[0] != "_"}


@pytest.mark.parametrize("kind", [MemoryTransaction, PostgresTransaction])
def test_every_verb_is_kept_with_the_same_parameters(kind: type) -> None:
    for verb in sorted(verbs(interface.Transaction)):
        asked = list(inspect.signature(getattr(interface.Transaction, verb)).parameters)[1:]
        kept = list(inspect.signature(getattr(kind, verb)).parameters)[1:]
        assert kept[: len(asked)] == asked, verb


# -- transactions ------------------------------------------------------------------------------------------------------


def test_an_error_takes_back_everything(house: House) -> None:
    flow = house.instance()
    ready = house.step(flow)
    now = house.now()
    with suppress(Stop), house.store.transaction() as tx:
        tx.claim_one(ready.id, ALL, Worker(id=uuid4(), name="w"))
        tx.reserve_keys({IdempotencyKey("t", False, "key"): flow.id})
        written = (put(flow), output({"x": 1}, at=now), StatePut(name="k", value=1), TimerPut(key=KEY, due_at=now))
        tx.write([(flow, (*written, StepGone(key=KEY), ContextPut(data={}, config=None)))])
        raise Stop
    assert house.read_step(flow) == ready
    assert house.output(flow, NEWEST) is ABSENT
    left = house.slice(flow, Needs(context=True, whole_state=True))
    assert (left.instance.version, left.context, left.state) == (
        0,
        ContextPut(data={"n": 1}, config={"c": True}),
        {},
    )
    with house.store.transaction() as tx:
        assert not [due for due in tx.due_timers(10_000) if due.instance_id == flow.id]
        assert tx.reserve_keys({IdempotencyKey("t", False, "key"): flow.id}) == {}
        assert tx.claim_one(ready.id, ALL, Worker(id=uuid4(), name="w")) is not None


def test_locking_tells_versions_and_claims(house: House) -> None:
    flow, other = house.instance(), uuid4()
    claimed, free = house.step(flow), house.step(flow, NodeKey("b"))
    with house.store.transaction() as tx:
        claim = tx.claim_one(claimed.id, ALL, Worker(id=uuid4(), name="w"))
    assert claim is not None
    house.write(flow, put(flow))
    with house.store.transaction() as tx:
        locked = tx.lock([flow.id, other], [claimed.id, free.id, uuid4()])
    assert locked.versions == {flow.id: 1}
    assert locked.held == {claim.token}
    assert locked.now.utcoffset() == timedelta(0)


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


def test_instances_that_begin_alike_are_stored_each_with_its_own(house: House) -> None:
    pattern = house.instance(version=1, budget={"max_steps": 3}, session_id=uuid4(), current_step="a")
    now = house.now()
    opened = house.step(pattern, state=StepState.DELAYED, wake_at=now, timeout=timedelta(seconds=5))
    timer = TimerPut(key=KEY, due_at=now)
    audit = TransitionRecorded(
        id=uuid4(), from_state="running", to_state="waiting", block_id=None, details={"d": 1}, created_at=now
    )
    profiles = [Profile(data={"n": n}, config={"c": n}, metadata={"m": n}, audit=[{"n": n}]) for n in range(3)]
    profiles.append(Profile())
    members = [Member(house.new_id(), uuid4(), uuid4(), (uuid4(),), profile) for profile in profiles]
    beginning = Beginning(instance=pattern, step=opened, timers=(timer,), transitions=(audit,))
    with house.store.transaction() as tx:
        tx.insert_alike([Alike(beginning=beginning, members=members, hinted=2)])
    for number, member in enumerate(members):
        stored = replace(pattern, id=member.id, run_id=member.run_id)
        found = house.slice(stored, Needs(steps=frozenset({KEY}), timers=frozenset({KEY}), context=True, metadata=True))
        assert found.instance == stored
        hinted_at = pattern.updated_at if number < 2 else None
        assert found.steps[KEY] == replace(opened, id=member.step_id, hinted_at=hinted_at)
        assert found.timers[KEY] == now
        profile = member.profile
        assert (found.sections().data, found.sections().config) == (profile.data, profile.config)
        assert found.profile_metadata() == profile.metadata


def test_definitions_are_found_by_id(house: House) -> None:
    flow = house.instance()
    with house.store.transaction() as tx:
        found = tx.load_definitions([flow.sequence_id, uuid4()])
    assert list(found) == [flow.sequence_id]
    assert [block["id"] for block in found[flow.sequence_id].document["blocks"]] == ["a"]


def test_api_8_idempotency_keys_belong_to_the_first_of_a_tenant(house: House) -> None:
    first, second, name = uuid4(), uuid4(), str(uuid4())
    mine, theirs = IdempotencyKey("t", False, name), IdempotencyKey("u", False, name)
    with house.store.transaction() as tx:
        assert tx.reserve_keys({}) == {}
        assert tx.reserve_keys({mine: first}) == {}
        assert tx.reserve_keys({mine: second, theirs: second}) == {mine: first}
        assert tx.reserve_keys({mine._replace(dry_run=True): second}) == {}
        assert tx.reserve_keys({theirs: first}) == {theirs: second}


# -- what a slice is filled with ---------------------------------------------------------------------------------------


def test_nodes_and_steps_that_are_not_there_are_known_to_be_absent(house: House) -> None:
    flow = house.instance()
    node = Node(key=KEY, state=NodeState.RUNNING, started_at=flow.created_at, memory={"choice": 1, "seen": (1, 2)})
    house.write(flow, NodePut(node=node))
    needs = Needs(nodes=frozenset({KEY, NodeKey("a", (1,))}), steps=frozenset({KEY}))
    found = house.slice(flow, needs)
    assert found.nodes[NodeKey("a", (1,))] is None
    assert found.steps[KEY] is None
    assert found.nodes[KEY] is not None
    assert dict(found.nodes[KEY].memory) == {"choice": 1, "seen": [1, 2]}


def test_what_a_slice_knows_already_stays(house: House) -> None:
    flow = house.instance()
    house.write(flow, StatePut(name="k", value="stored"), StatePut(name="other", value=1))
    with house.store.transaction() as tx:
        current = Slice(plan=Plan(definition_of([step("a")])), instance=flow)
        current.state["k"] = "decided"
        current.context = ContextPut(data="decided", config=None)
        tx.fill([(current, Needs(whole_state=True, context=True, state=frozenset({"gone"})))])
    assert current.state == {"k": "decided", "other": 1, "gone": ABSENT}
    assert current.context.data == "decided"


def test_the_newest_output_of_a_lane_and_of_all(house: House) -> None:
    flow = house.instance()
    now = house.now()
    later = now + timedelta(milliseconds=5)
    house.write(
        flow,
        output("lane 1, later", at=later, key=NodeKey("a", (1,)), lane=(1,)),
        output("lane 0", at=now, key=NodeKey("a", (0,)), lane=(0,)),
        output("lane 1", at=now, key=NodeKey("a", (1,)), lane=(1,)),
    )
    assert house.output(flow, OutputKey("a", (0,))) == "lane 0"
    assert house.output(flow, OutputKey("a", (1,))) == "lane 1, later"
    assert house.output(flow, OutputKey("a", None)) == "lane 1, later"
    assert house.output(flow, OutputKey("a", ())) is ABSENT


def test_an_output_that_is_null_is_there(house: House) -> None:
    flow = house.instance()
    house.write(flow, output(None, at=house.now()))
    assert house.output(flow, NEWEST) is None


def test_an_output_is_stored_once(house: House) -> None:
    flow = house.instance()
    row = output(1, at=house.now())
    house.write(flow, row)
    with pytest.raises(Exception, match=r"there already|duplicate key"):
        house.write(flow, row)


def test_s9_a_retry_removes_the_error_rows_and_the_former_output_is_the_newest_again(house: House) -> None:
    flow = house.instance()
    now = house.now()
    house.write(flow, output("good", at=now), output({"error": 1}, at=now, ref="__error__"))
    assert house.output(flow, NEWEST) == {"error": 1}
    house.write(flow, ErrorRowsRemoved())
    assert house.output(flow, NEWEST) == "good"


def test_s9_8_forgotten_blocks_leave_no_rows_and_may_be_written_anew(house: House) -> None:
    flow, now, other = house.instance(), house.now(), NodeKey("b")
    item = ItemKey(KEY, 0)
    house.write(
        flow,
        *(NodePut(node=Node(key=key, state=NodeState.COMPLETED)) for key in (KEY, other)),
        ItemsCaptured(key=KEY, items=("old",)),
        *(output("old", at=now, key=key) for key in (KEY, KEY, other)),
    )
    needs = Needs(rows_of=frozenset({"a", "b", "c"}), nodes=frozenset({KEY, other}), outputs=frozenset({NEWEST}))
    assert house.slice(flow, needs).row_counts == {"a": 2, "b": 1, "c": 0}
    again = Node(key=KEY, state=NodeState.RUNNING)
    house.write(flow, BlocksForgotten(blocks=("a",), rows=2), NodePut(node=again), ItemsCaptured(key=KEY, items=("n",)))
    found = house.slice(flow, replace(needs, items=frozenset({item})))
    assert found.row_counts == {"a": 0, "b": 1, "c": 0}
    assert (found.nodes[KEY], found.nodes[other].state) == (again, NodeState.COMPLETED)
    assert (found.outputs[NEWEST], found.items[item]) == (ABSENT, "n")


def test_s9_9_copy_has_the_ended_rows_of_some_blocks_the_state_and_the_injections(house: House) -> None:
    source, now = house.instance(), house.now()
    copy = house.instance()
    open_key, other = NodeKey("a", (1,)), NodeKey("b")
    ended = Node(key=KEY, state=NodeState.COMPLETED, completed_at=now)
    injection = Injection(number=0, blocks=parse_blocks([step("i")]), before=None)
    house.write(
        source,
        *(NodePut(node=replace(ended, key=key)) for key in (KEY, other)),
        NodePut(node=Node(key=open_key, state=NodeState.RUNNING)),
        ItemsCaptured(key=KEY, items=("x",)),
        *(output(value, at=now) for value in ("first", "second")),
        output("beside", at=now, lane=(BESIDE,)),
        output("failed", at=now, ref="__error__"),
        output("other", at=now, key=other),
        StatePut(name="k", value=1),
        InjectionAdded(injection=injection),
    )
    with house.store.transaction() as tx:
        tx.copy_rows(source.id, copy.id, ["a"], house.new_id_at(now))
        assert tx.state_values(copy.id) == {"k": 1}
        assert [each.number for each in tx.load_injections([copy.id])[copy.id]] == [0]
    found = house.slice(
        copy,
        Needs(
            nodes=frozenset({KEY, open_key, other}),
            outputs=frozenset({NEWEST}),
            items=frozenset({ItemKey(KEY, 0)}),
            rows_of=frozenset({"a", "b"}),
        ),
    )
    assert found.nodes == {KEY: ended, open_key: None, other: None}
    assert (found.outputs[NEWEST], found.items[ItemKey(KEY, 0)]) == ("second", "x")
    assert found.row_counts == {"a": 2, "b": 0}
    assert house.slice(source, Needs(rows_of=frozenset({"a"}))).row_counts == {"a": 4}


def test_state_values_come_and_go(house: House) -> None:
    flow = house.instance()
    house.write(flow, StatePut(name="k", value={"deep": [1, None]}), StatePut(name="gone", value=1))
    house.write(flow, StatePut(name="k", value=2), StateGone(name="gone"), StateGone(name="never"))
    with house.store.transaction() as tx:
        assert tx.state_values(flow.id) == {"k": 2}
        assert tx.state_values(uuid4()) == {}


def test_nobody_can_change_a_stored_value(house: House) -> None:
    flow = house.instance()
    value = {"list": [1]}
    house.write(flow, StatePut(name="k", value=value))
    value["list"].append(2)
    with house.store.transaction() as tx:
        tx.state_values(flow.id)["k"]["list"].append(3)
        assert tx.state_values(flow.id) == {"k": {"list": [1]}}


def test_items_of_a_for_each_are_loaded_ahead_but_not_back(house: House) -> None:
    flow = house.instance()
    house.write(flow, ItemsCaptured(key=KEY, items=tuple(range(30))))
    found = house.slice(flow, Needs(items=frozenset({ItemKey(KEY, 3)}))).items
    assert found == {ItemKey(KEY, position): position for position in range(3, 23)}


def test_s9_4_signals_are_kept_in_order_until_they_are_consumed(house: House) -> None:
    flow = house.instance()
    signals = [KeptSignal(id=output(0, at=house.now()).id, name=name, payload={"n": name}) for name in ("b", None, "c")]
    house.write(flow, *(SignalKept(signal=signal) for signal in signals))
    house.write(flow, SignalConsumed(id=signals[0].id), SignalConsumed(id=uuid4()))
    assert house.slice(flow, Needs(signals=True)).kept_signals() == (signals[1], signals[2])


def test_open_work_is_every_open_step_and_every_composite_that_has_not_ended(house: House) -> None:
    flow = house.instance()
    ready = house.step(flow)
    nodes = {state: Node(key=NodeKey(state.value), state=state) for state in NodeState}
    house.write(flow, *(NodePut(node=node) for node in nodes.values()))
    found = house.slice(flow, Needs(open_work=True))
    assert found.steps == {KEY: ready}
    assert {key.block_id for key in found.nodes} == {"running", "waiting"}
    assert found.open_work
    assert {key.block_id for key in house.slice(flow, Needs(ended_badly=True)).nodes} == {"failed", "cancelled"}


def test_contexts_and_audit_are_read_as_given(house: House) -> None:
    flow = house.instance(profile=Profile(data=[1, "x"], config=None, audit=[{"who": "me"}]))
    found = house.slice(flow, Needs(context=True))
    assert (found.context, found.audit) == (ContextPut(data=[1, "x"], config=None), [{"who": "me"}])
    house.write(flow, ContextPut(data={"new": 1}, config={}))
    assert house.slice(flow, Needs(context=True)).context == ContextPut(data={"new": 1}, config={})


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


def test_what_lies_beside_the_flow_is_nobodys_newest_output(house: House) -> None:
    flow = house.instance()
    beside = NodeKey("a", (BESIDE, 0))
    house.write(flow, output("aside", at=house.now(), key=beside, lane=beside.iteration))
    assert house.output(flow, OutputKey("a", None)) is ABSENT
    assert house.output(flow, OutputKey("a", beside.iteration)) == "aside"


def test_injections_are_read_in_order(house: House) -> None:
    flow, other = house.instance(), house.instance()
    made = [Injection(number=n, blocks=parse_blocks([step(f"b{n}")]), before=None) for n in (1, 0)]
    house.write(flow, *(InjectionAdded(injection=injection) for injection in made))
    with house.store.transaction() as tx:
        assert tx.load_injections([flow.id, other.id, uuid4()]) == {flow.id: [made[1], made[0]]}


def test_metadata_are_merged_over_what_the_client_gave(house: House) -> None:
    flow = house.instance(profile=Profile(metadata={"a": 1, "b": 1}))
    house.write(flow, MetadataMerged(values={"b": 2}))
    assert house.slice(flow, Needs(metadata=True)).profile_metadata() == {"a": 1, "b": 2}


# -- claims ------------------------------------------------------------------------------------------------------------


def test_a_step_is_claimed_once(house: House) -> None:
    flow = house.instance()
    ready = house.step(flow, timeout=timedelta(seconds=9))
    one, two = Worker(id=uuid4(), name="one", slot=7), Worker(id=uuid4(), name="two")
    with house.store.transaction() as tx:
        assert tx.claim_one(ready.id, ["other"], one) is None
        claim = tx.claim_one(ready.id, ALL, one)
        assert tx.claim_one(ready.id, ALL, two) is None
        assert tx.claim_ready(ready.queue, ALL, two, together=ALL, limit=5) == []
        assert claim is not None
        assert tx.is_held_by(ready.id, claim.token)
        assert not tx.is_held_by(ready.id, uuid4())
        assert tx.claims_of(one.id) == [claim]
        assert tx.claims_of_slots(one.id) == [(7, claim)]
        assert tx.claims_of(two.id) == []
    stored = house.read_step(flow)
    assert stored is not None
    assert (stored.state, stored.token, stored.claim_epoch) == (StepState.CLAIMED, claim.token, 1)
    assert claim.expires_at is not None
    assert abs(claim.expires_at - claim.claimed_at - timedelta(seconds=9)) < timedelta(seconds=1)


def test_an_attempt_ends_soon_after_the_deadline_of_its_step(house: House) -> None:
    flow = house.instance()
    deadline = house.now() + timedelta(seconds=5)
    ready = house.step(flow, timeout=timedelta(hours=1), deadline_at=deadline, memory={"given": [1]})
    with house.store.transaction() as tx:
        claim = tx.claim_one(ready.id, ALL, Worker(id=uuid4(), name="w"))
    assert claim is not None
    assert claim.expires_at == deadline + timedelta(seconds=1)
    stored = house.read_step(flow)
    assert stored is not None
    assert stored.memory == {"given": [1]}


def test_the_most_urgent_step_is_claimed_first(house: House) -> None:
    flow = house.instance()
    now = house.now()
    for name, priority, age in (("old", 1, 9), ("urgent", 2, 1), ("young", 1, 1)):
        house.step(flow, NodeKey(name), priority=priority, ready_at=now - timedelta(seconds=age))
    house.step(flow, NodeKey("foreign"), handler="other")
    worker = Worker(id=uuid4(), name="w")
    with house.store.transaction() as tx:
        taken = tx.claim_ready(str(flow.id), ALL, worker, together=ALL, limit=2)
        taken += tx.claim_ready(str(flow.id), ALL, worker, together=ALL, limit=9)
    assert {owner for owner, _ in taken} == {flow.id}
    assert [step.key.block_id for _, step in taken] == ["urgent", "old", "young"]


def test_a_hinted_step_is_claimed_first_unless_another_is_more_urgent(house: House) -> None:
    flow = house.instance()
    queue, worker = str(flow.id), Worker(id=uuid4(), name="w")
    old, hinted, urgent = (
        house.step(flow, NodeKey(name), priority=priority, ready_at=house.now() - timedelta(seconds=age))
        for name, priority, age in (("old", 1, 9), ("hinted", 1, 1), ("urgent", 2, 1))
    )

    def claimed(step_id: UUID) -> list[str]:
        with house.store.transaction() as tx:
            taken = tx.claim_ready(queue, ALL, worker, step_id=step_id)
        return [step.key.block_id for _, step in taken]

    assert claimed(hinted.id) == ["urgent"]
    assert claimed(hinted.id) == ["hinted"]
    assert claimed(hinted.id) == ["old"]
    assert claimed(old.id) == claimed(urgent.id) == []


def test_more_than_one_step_is_claimed_only_of_handlers_that_run_together(house: House) -> None:
    flow = house.instance()
    queue, worker = str(flow.id), Worker(id=uuid4(), name="w")
    made = [
        house.step(flow, NodeKey(name), handler=handler, ready_at=house.now() - timedelta(seconds=age))
        for name, handler, age in (("a", "slow", 9), ("b", "quick", 8), ("c", "slow", 7), ("d", "quick", 6))
    ]

    def claimed(step_id: UUID | None = None) -> list[str]:
        with house.store.transaction() as tx:
            taken = tx.claim_ready(queue, ["slow", "quick"], worker, step_id=step_id, together=["quick"], limit=9)
        return [step.key.block_id for _, step in taken]

    assert claimed() == ["a"]
    assert claimed(made[3].id) == ["d", "b"]
    assert claimed() == ["c"]


def test_api_12_tasks_are_claimed_by_queue_handler_and_tenant(house: House) -> None:
    flow = house.instance()
    queue = str(flow.id)
    house.step(flow, NodeKey("plain"), handler="task")
    house.step(flow, NodeKey("named"), handler="task", is_queue_named=True)
    given = {"queue": queue, "handler": "task", "takers": ["poller"] * 9}
    with house.store.transaction() as tx:
        assert tx.claim_tasks(**given, is_named=True, tenant_id="else") == []
        assert [t.step.key.block_id for t in tx.claim_tasks(**given, is_named=True, tenant_id="t")] == ["named"]
        assert [t.step.key.block_id for t in tx.claim_tasks(**given, is_named=False, tenant_id=None)] == ["plain"]
    house.write(flow, StepGone(key=NodeKey("plain")), StepGone(key=NodeKey("named")))


def test_api_13_2_tasks_are_claimed_the_oldest_first_whatever_their_priority(house: House) -> None:
    flow = house.instance()
    now = house.now()
    for name, priority, age in (("third", 2, 1), ("first", 1, 9), ("last", 9, 0), ("second", 0, 5)):
        ready_at = now - timedelta(seconds=age)
        house.step(flow, NodeKey(name), handler="task", priority=priority, ready_at=ready_at)
    given = {"queue": str(flow.id), "is_named": False, "handler": "task", "tenant_id": None}
    claimed = []
    with house.store.transaction() as tx:
        for limit in (1, 2, 9):
            found = tx.claim_tasks(**given, takers=["poller"] * limit)
            assert len(found) == min(limit, 4 - len(claimed))
            claimed += [task.step.key for task in found]
    house.write(flow, *(StepGone(key=key) for key in claimed))
    assert [key.block_id for key in claimed] == ["first", "second", "third", "last"]


def test_api_13_2_tasks_of_one_claim_are_dealt_out_in_the_order_of_the_takers(house: House) -> None:
    flow = house.instance()
    now = house.now()
    for name, priority, age in (("c", 2, 3), ("a", 0, 9), ("d", 1, 1), ("b", 2, 5)):
        ready_at = now - timedelta(seconds=age)
        house.step(flow, NodeKey(name), handler="task", priority=priority, ready_at=ready_at)
    with house.store.transaction() as tx:
        held = tx.claim_tasks(
            queue=str(flow.id), is_named=False, handler="task", tenant_id="t", takers=["x", "y", "x", "z", "late"]
        )
    stored = [house.read_step(flow, task.step.key) for task in held]
    house.write(flow, *(StepGone(key=task.step.key) for task in held))
    assert [(task.step.key.block_id, task.step.worker_name) for task in held] == [
        ("a", "x"),
        ("b", "y"),
        ("c", "x"),
        ("d", "z"),
    ]
    assert [task.step for task in held] == stored
    assert len({task.step.token for task in held}) == 4
    assert {(task.step.claim_epoch, task.checkpoint, task.checkpoint_seq) for task in held} == {(1, None, 0)}
    assert all(
        now <= task.step.claimed_at <= task.heartbeat_at for task in held if task.step.claimed_at and task.heartbeat_at
    )


def test_a_new_attempt_has_a_new_name(house: House) -> None:
    flow = house.instance()
    first = house.step(flow)
    second = house.step(flow, attempt=1)
    with house.store.transaction() as tx:
        assert tx.claim_one(first.id, ALL, Worker(id=uuid4(), name="w")) is None
        assert tx.claim_one(second.id, ALL, Worker(id=uuid4(), name="w")) is not None
    house.write(flow, StepGone(key=KEY))
    with house.store.transaction() as tx:
        assert not tx.is_held_by(second.id, uuid4())
    assert house.read_step(flow) is None


def test_claims_of_workers_without_a_heartbeat_are_lost(house: House) -> None:
    flow = house.instance()
    silent, living, unheard = house.worker(), house.worker(), Worker(id=uuid4(), name="never registered")
    for name, worker in (("s", silent), ("l", living), ("u", unheard)):
        ready = house.step(flow, NodeKey(name))
        with house.store.transaction() as tx:
            tx.claim_one(ready.id, ALL, worker)
    house.elapse(timedelta(minutes=10))
    with house.store.transaction() as tx:
        assert tx.beat_worker(living.id)
        assert not tx.beat_worker(unheard.id)
        lost = [c for c in tx.lost_claims(timedelta(minutes=1), 10_000) if c.instance_id == flow.id]
        tx.remove_silent_workers(timedelta(minutes=1))
        names = {row["name"] for row in tx.workers_alive(timedelta(minutes=1))}
        longer = {row["name"] for row in tx.workers_alive(timedelta(hours=1))}
    assert {c.key.block_id for c in lost} == {"s", "u"}
    assert living.name in names
    assert silent.name not in names
    assert silent.name in longer, "its row stays as long as it holds a claim"
    with house.store.transaction() as tx:
        tx.remove_worker(living.id)
        assert living.name not in {row["name"] for row in tx.workers_alive(timedelta(hours=1))}


def test_tasks_of_silent_pollers_go_back_as_they_are(house: House) -> None:
    flow = house.instance()
    task = house.step(flow, handler="task")
    with house.store.transaction() as tx:
        given = {"queue": task.queue, "is_named": False, "handler": "task", "tenant_id": None}
        assert tx.claim_tasks(**given, takers=["poller"])
        tx.release_stale_tasks(timedelta(seconds=60), 10_000)
        assert tx.claim_tasks(**given, takers=["other"]) == []
    house.elapse(timedelta(seconds=61))
    with house.store.transaction() as tx:
        assert tx.release_stale_tasks(timedelta(seconds=60), 10_000) == 1
    stored = house.read_step(flow)
    assert stored is not None
    assert (stored.state, stored.id, stored.token, stored.attempt) == (StepState.READY, task.id, None, 0)


@pytest.mark.parametrize(("outcome", "is_known"), [("completed", True), ("failed", True), ("lost", False)])
def test_only_reported_outcomes_count_as_committed(house: House, outcome: str, is_known: bool) -> None:
    flow = house.instance()
    ready = house.step(flow)
    with house.store.transaction() as tx:
        claim = tx.claim_one(ready.id, ALL, Worker(id=uuid4(), name="w"))
    assert isinstance(claim, Claim)
    now = house.now()
    row = AttemptRecorded(
        id=uuid4(),
        key=KEY,
        step_id=ready.id,
        attempt=0,
        handler="noop",
        queue="q",
        outcome=outcome,
        token=claim.token,
        worker_id=None,
        claimed_at=now,
        ended_at=now,
        error={"message": "x"},
    )
    with house.store.transaction() as tx:
        assert not tx.has_committed(claim)
        tx.write([(flow, (row,))])
        assert tx.has_committed(claim) is is_known


def test_a_sleeping_step_keeps_what_it_will_return(house: House) -> None:
    flow = house.instance()
    asleep = house.step(flow, state=StepState.ASLEEP, output={"slept": [1]}, wake_at=house.now())
    assert house.read_step(flow) == asleep
    house.write(flow, StepPut(step=house.step(flow, NodeKey("b"))))


# -- hints -------------------------------------------------------------------------------------------------------------


LEASE = timedelta(seconds=15)


def heads_of(house: House, flow: Instance) -> list[tuple[UUID, int]]:
    with house.store.transaction() as tx:
        found = tx.heads(ALL, LEASE, 500)
    return [(head.step_id, head.hints) for head in found if head.queue == str(flow.id)]


def test_heads_are_ready_steps_without_a_fresh_hint_the_most_urgent_first(house: House) -> None:
    flow, now = house.instance(), house.now()
    late = house.step(flow, NodeKey("late"), ready_at=now)
    early = house.step(flow, NodeKey("early"), ready_at=now - LEASE)
    urgent = house.step(flow, NodeKey("urgent"), priority=5)
    house.step(flow, NodeKey("other"), handler="unknown")
    house.step(flow, NodeKey("gate"), state=StepState.GATE)
    house.step(flow, NodeKey("rung"), hinted_at=now)
    assert heads_of(house, flow) == [(urgent.id, 0), (early.id, 0), (late.id, 0)]


def test_a_hint_without_an_answer_is_out_for_its_lease(house: House) -> None:
    flow = house.instance()
    ready = house.step(flow)
    for hints in (1, 2):
        with house.store.transaction() as tx:
            tx.mark_hinted([ready.id])
        with house.store.transaction() as tx:
            assert tx.outstanding_hints(LEASE)[str(flow.id)] == 1
        assert heads_of(house, flow) == []
        house.elapse(2 * LEASE)
        with house.store.transaction() as tx:
            assert str(flow.id) not in tx.outstanding_hints(LEASE)
        assert heads_of(house, flow) == [(ready.id, hints)]


def test_forgotten_hints_are_to_be_sent_anew(house: House) -> None:
    flow = house.instance()
    ready = house.step(flow)
    with house.store.transaction() as tx:
        tx.mark_hinted([ready.id])
    with house.store.transaction() as tx:
        assert tx.forget_hints() >= 1
    assert heads_of(house, flow) == [(ready.id, 1)]


def test_facts_are_read_as_they_were_last_written(house: House) -> None:
    with house.store.transaction() as tx:
        assert tx.read_fact("nobody wrote this") is None
        tx.write_fact("colour", "red")
        tx.write_fact("colour", "blue")
    with house.store.transaction() as tx:
        assert tx.read_fact("colour") == "blue"


# -- timers ------------------------------------------------------------------------------------------------------------


def test_timers_are_due_in_order_and_once_set_anew_only_then(house: House) -> None:
    flow = house.instance()
    now = house.now()
    keys = [NodeKey("a", (number,)) for number in range(3)]
    house.write(flow, *(TimerPut(key=key, due_at=now + timedelta(hours=3 - key.iteration[0])) for key in keys))
    house.elapse(timedelta(hours=2, minutes=1))

    def due() -> list[Any]:
        with house.store.transaction() as tx:
            return [found for found in tx.due_timers(10_000) if found.instance_id == flow.id]

    seen = due()
    assert [found.key for found in seen] == [keys[2], keys[1]]
    with house.store.transaction() as tx:
        assert tx.next_due() is not None
        tx.postpone_timer(seen[0], timedelta(hours=9))
        tx.write([(flow, (TimerPut(key=keys[1], due_at=now), TimerGone(key=keys[0])))])
        tx.drop_timers(seen)
    assert [found.key for found in due()] == [keys[1]], "the one set anew stands, although the old one was dropped"
    house.elapse(timedelta(hours=10))
    assert [found.key for found in due()] == [keys[1], keys[2]]


# -- letters and children --------------------------------------------------------------------------------------------


def write_letter(house: House, recipient: Instance | UUID, payload: Any = None) -> UUID:
    sender = house.instance()
    found = recipient if isinstance(recipient, UUID) else recipient.id
    content = SignalSent(signal=Custom("go"), payload=payload)
    letter = Letter(id=house.new_id(), sender=sender.id, recipient=found, content=content)
    house.write(sender, LetterWritten(letter=letter))
    return letter.id


def test_letters_are_read_in_order_and_gone_once_opened(house: House) -> None:
    flow = house.instance()
    first, second = write_letter(house, flow, {"n": 1}), write_letter(house, flow, [2])
    with house.store.transaction() as tx:
        assert tx.waiting_letters([flow.id, uuid4()]) == {flow.id: 2}
    seen = house.slice(flow, Needs(letters=True)).letters
    assert seen is not None
    assert [(i, letter.content.payload) for i, letter in seen.items()] == [(first, {"n": 1}), (second, [2])]
    house.write(flow, LetterOpened(id=first))
    assert list(house.slice(flow, Needs(letters=True)).letters or ()) == [second]


def test_letters_are_overdue_after_a_grace_and_can_be_postponed(house: House) -> None:
    flow = house.instance()
    write_letter(house, flow)

    def overdue() -> bool:
        with house.store.transaction() as tx:
            return flow.id in tx.overdue_letters(10_000)

    assert not overdue()
    house.elapse(timedelta(seconds=1))
    assert overdue()
    with house.store.transaction() as tx:
        tx.postpone_letters(flow.id, timedelta(hours=1))
    assert not overdue()


def test_only_letters_that_nobody_can_open_are_dropped(house: House) -> None:
    living, ended, nobody = house.instance(), house.instance(), uuid4()
    house.write(ended, put(ended, state=InstanceState.FAILED))
    for recipient in (living, ended, nobody):
        write_letter(house, recipient)
    everybody = [living.id, ended.id, nobody]
    with house.store.transaction() as tx:
        assert tx.drop_undeliverable_letters(everybody) == 2
        assert tx.waiting_letters(everybody) == {living.id: 1}


def test_a_child_has_its_parents_config_and_a_timer_that_is_due(house: House) -> None:
    parent = house.instance()
    now = house.now()
    made_by = Parent(instance_id=parent.id, key=NodeKey("call", (2,)))
    child = replace(parent, id=house.new_id(), scheduled=1, parent=made_by, depth=1, created_at=now, updated_at=now)
    house.write(parent, ChildCreated(child=child, data={"x": 1}))
    with house.store.transaction() as tx:
        assert tx.load_instances([child.id]) == {child.id: child}
        assert [due.key for due in tx.due_timers(10_000) if due.instance_id == child.id] == [ROOT_KEY]
    assert house.slice(child, Needs(context=True)).context == ContextPut(data={"x": 1}, config={"c": True})


def test_rows_of_a_child_are_shown_as_clients_see_them(house: House) -> None:
    reader, child = house.instance(), house.instance()
    house.write(child, output({"x": "ü"}, at=house.now()))
    (row,) = house.slice(reader, Needs(child_rows=frozenset({child.id}))).child_rows[child.id]
    assert (row["instance_id"], row["block_id"], row["output"], row["output_ref"]) == (
        str(child.id),
        "a",
        {"x": "ü"},
        None,
    )
    assert (row["output_size"], row["attempt"], row["created_at"][-1]) == (10, 0, "Z")


def test_a_name_stands_for_the_newest_version_that_is_not_deprecated(house: House) -> None:
    name = f"s-{uuid4()}"
    schema = {"type": "object"}
    made = [definition_of([step("a")], name=name, version=number, input_schema=schema) for number in (1, 2, 3)]
    for each in made[:2]:
        house.define(each)
    house.define(made[2].model_copy(update={"deprecated": True}))
    wanted = [SequenceName(name), SequenceName(name, 1), SequenceName(name, 3), SequenceName(name, 4)]
    found = house.slice(house.instance(), Needs(sequences=frozenset(wanted))).sequences
    ids = [None if found[each] is None else found[each].sequence_id for each in wanted]
    assert ids == [made[1].id, made[0].id, made[2].id, None]
    assert found[wanted[0]].input_schema == schema


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


# -- triggers and effects ----------------------------------------------------------------------------------------------


def test_the_key_of_an_emission_is_taken_once_in_its_scope(house: House) -> None:
    tenant, first, second = f"t-{uuid4()}", uuid4(), uuid4()
    with house.store.transaction() as tx:
        assert tx.reserve_emission(tenant, "tenant", "k", first) is None
        assert tx.reserve_emission(tenant, "tenant", "k", second) == first
        assert tx.reserve_emission(tenant, str(first), "k", second) is None
        assert tx.trigger(f"no-{uuid4()}") is None


def test_the_act_of_a_step_is_found_in_its_run_and_stored_once(house: House) -> None:
    flow, run = house.instance(), uuid4()
    done = EffectDone(
        id=house.new_id(),
        tenant_id="t",
        instance_id=flow.id,
        key=NodeKey("emit", (1,)),
        run_id=run,
        kind="message",
        destination_fingerprint="d",
        request_sha256="r",
        provider_receipt_id="p",
        attempt=2,
        answer={"deduped": False},
        created_at=house.now(),
    )
    with house.store.transaction() as tx:
        assert tx.insert_effect(done)
        assert not tx.insert_effect(replace(done, id=uuid4(), attempt=3))
        assert tx.effect_of_step(flow.id, done.key, run) == done
        assert tx.effect_of_step(flow.id, done.key, uuid4()) is None
        assert tx.effect_of_step(flow.id, NodeKey("emit"), run) is None


def test_a_definition_is_found_by_name(house: House) -> None:
    name = f"s-{uuid4()}"
    made = [definition_of([step("a")], name=name, version=number) for number in (1, 2)]
    for each in made:
        house.define(each)
    with house.store.transaction() as tx:
        found = [tx.newest_definition("t", "n", name, version=version) for version in (None, 1, 7)]
        assert tx.newest_definition("other", "n", name) is None
    assert [None if each is None else each.id for each in found] == [made[1].id, made[0].id, None]
