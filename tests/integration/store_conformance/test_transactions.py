"""What a transaction locks, and what becomes of it when it breaks off."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from orchestrator.core.changes import (
    Change,
    ContextPut,
    ItemsCaptured,
    NodePut,
    StatePut,
    StepGone,
    TimerPut,
    TransitionRecorded,
)
from orchestrator.core.model import Claim, Instance, ItemKey, Node, NodeKey, Step
from orchestrator.core.slice import ABSENT, Needs
from orchestrator.core.states import InstanceState, NodeState
from orchestrator.store.claiming import Worker
from orchestrator.store.instances import IdempotencyKey
from tests.integration.store_conformance.house import ALL, KEY, NEWEST, House, output, put


class Stop(Exception):
    """Breaks a transaction off."""


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


def claimed(house: House, step: Step) -> Claim:
    with house.store.transaction() as tx:
        claim = tx.claim_one(step.id, ALL, Worker(id=uuid4(), name="w"))
    assert claim is not None
    return claim


def rows_of_every_fenced_kind(house: House, flow: Instance) -> tuple[Change, ...]:
    """Put the next version, and rows into each table that a commit in one message may write."""
    now, [first, second] = house.now(), [NodeKey("c"), NodeKey("d")]
    return (
        put(flow),
        StepGone(key=KEY),
        NodePut(node=Node(key=KEY, state=NodeState.COMPLETED, started_at=now, completed_at=now)),
        *(NodePut(node=Node(key=key, state=NodeState.RUNNING, started_at=now)) for key in (first, second)),
        output({"it's": "é\\"}, at=now),
        TimerPut(key=first, due_at=now),
        TransitionRecorded(
            id=house.new_id(), from_state=None, to_state=None, block_id="a", details={}, created_at=now, event="told"
        ),
        ContextPut(data={"n": 2}, config=None),
        ItemsCaptured(key=first, items=(1, 2)),
    )


def test_what_is_written_at_once_is_committed_if_the_instance_is_as_it_was_found(house: House) -> None:
    flow = house.instance()
    claim = claimed(house, house.step(flow))
    changes = rows_of_every_fenced_kind(house, flow)
    with house.store.transaction() as tx:
        written = tx.write_at_once(flow, changes, found=0, claims=[claim])
    assert written is not None
    assert written.is_current
    assert abs(written.now - house.now()) < timedelta(minutes=1)
    left = house.slice(
        flow,
        Needs(
            context=True,
            steps=frozenset({KEY}),
            nodes=frozenset({KEY, NodeKey("c"), NodeKey("d")}),
            outputs=frozenset({NEWEST}),
            items=frozenset({ItemKey(NodeKey("c"), 1)}),
        ),
    )
    assert (left.instance.version, left.context) == (1, ContextPut(data={"n": 2}, config=None))
    assert left.steps == {KEY: None}
    assert [node.state if node else None for _, node in sorted(left.nodes.items())] == [
        NodeState.COMPLETED,
        NodeState.RUNNING,
        NodeState.RUNNING,
    ]
    assert left.outputs == {NEWEST: {"it's": "é\\"}}
    assert left.items[ItemKey(NodeKey("c"), 1)] == 2
    with house.store.transaction() as tx:
        assert [due.key for due in tx.due_timers(10_000) if due.instance_id == flow.id] == [NodeKey("c")]


@pytest.mark.parametrize("is_outdated", [True, False], ids=["by its version", "by its claim"])
def test_what_is_written_at_once_to_an_outdated_instance_leaves_nothing(house: House, *, is_outdated: bool) -> None:
    flow = house.instance()
    first, second = house.step(flow), house.step(flow, NodeKey("b"))
    claims = [claimed(house, first), claimed(house, second)]
    if is_outdated:
        house.write(flow, put(flow))
    else:
        claims[1] = replace(claims[1], token=uuid4())
    before = house.slice(flow, Needs(steps=frozenset({KEY}), context=True))
    changes = rows_of_every_fenced_kind(house, flow)
    with house.store.transaction() as tx:
        written = tx.write_at_once(flow, changes, found=0, claims=claims)
    assert written is not None
    assert not written.is_current
    left = house.slice(
        flow,
        Needs(
            context=True,
            steps=frozenset({KEY}),
            nodes=frozenset({KEY, NodeKey("c"), NodeKey("d")}),
            outputs=frozenset({NEWEST}),
            items=frozenset({ItemKey(NodeKey("c"), 1)}),
        ),
    )
    assert (left.instance, left.steps, left.context) == (before.instance, before.steps, before.context)
    assert set(left.nodes.values()) == {None}
    assert left.outputs == {NEWEST: ABSENT}
    assert left.items == {}
    with house.store.transaction() as tx:
        assert not [due for due in tx.due_timers(10_000) if due.instance_id == flow.id]
    house.write(flow, put(flow, state=InstanceState.PAUSED))  # the next transaction of the connection writes
    assert house.slice(flow, Needs()).instance.state is InstanceState.PAUSED


def test_nobody_can_change_a_stored_value(house: House) -> None:
    flow = house.instance()
    value = {"list": [1]}
    house.write(flow, StatePut(name="k", value=value))
    value["list"].append(2)
    with house.store.transaction() as tx:
        tx.state_values(flow.id)["k"]["list"].append(3)
        assert tx.state_values(flow.id) == {"k": {"list": [1]}}


def test_facts_are_read_as_they_were_last_written(house: House) -> None:
    with house.store.transaction() as tx:
        assert tx.read_fact("nobody wrote this") is None
        tx.write_fact("colour", "red")
        tx.write_fact("colour", "blue")
    with house.store.transaction() as tx:
        assert tx.read_fact("colour") == "blue"
