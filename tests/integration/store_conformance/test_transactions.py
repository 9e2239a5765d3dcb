"""What a transaction locks, and what becomes of it when it breaks off."""

from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

from orchestrator.core.changes import ContextPut, StatePut, StepGone, TimerPut
from orchestrator.core.model import NodeKey
from orchestrator.core.slice import ABSENT, Needs
from orchestrator.store.instances import IdempotencyKey
from orchestrator.store.steps import Worker
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
