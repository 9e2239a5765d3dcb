"""Which tasks a polling worker is given, and when they go back."""

from datetime import timedelta

from orchestrator.core.changes import ContextPut, StepGone
from orchestrator.core.model import NodeKey
from orchestrator.core.states import StepState
from tests.integration.store_conformance.house import House


def test_api_12_tasks_are_claimed_by_queue_handler_and_tenant(house: House) -> None:
    flow = house.instance()
    queue = str(flow.id)
    house.step(flow, NodeKey("plain"), handler="task")
    house.step(flow, NodeKey("named"), handler="task", is_queue_named=True)
    given = {"queue": queue, "handler": "task", "takers": ["poller"] * 9}
    with house.store.transaction() as tx:
        assert tx.claim_tasks(**given, is_named=True, tenant_id="else").tasks == []
        named = tx.claim_tasks(**given, is_named=True, tenant_id="t")
        plain = tx.claim_tasks(**given, is_named=False, tenant_id=None)
    assert [[task.step.key.block_id for task in taken.tasks] for taken in (named, plain)] == [["named"], ["plain"]]
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
            found = tx.claim_tasks(**given, takers=["poller"] * limit).tasks
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
        taken = tx.claim_tasks(
            queue=str(flow.id), is_named=False, handler="task", tenant_id="t", takers=["x", "y", "x", "z", "late"]
        )
    held = taken.tasks
    stored = [house.read_step(flow, task.step.key) for task in held]
    house.write(flow, *(StepGone(key=task.step.key) for task in held))
    assert [(task.step.key.block_id, task.step.worker_name) for task in held] == [
        ("a", "x"),
        ("b", "y"),
        ("c", "x"),
        ("d", "z"),
    ]
    assert [task.step for task in held] == stored
    assert taken.instances == {flow.id: flow}
    assert taken.contexts == {flow.id: (ContextPut(data={"n": 1}, config={"c": True}), None)}
    assert len({task.step.token for task in held}) == 4
    assert {(task.step.claim_epoch, task.checkpoint, task.checkpoint_seq) for task in held} == {(1, None, 0)}
    assert all(
        now <= task.step.claimed_at <= task.heartbeat_at for task in held if task.step.claimed_at and task.heartbeat_at
    )


def test_tasks_of_silent_pollers_go_back_as_they_are(house: House) -> None:
    flow = house.instance()
    task = house.step(flow, handler="task")
    with house.store.transaction() as tx:
        given = {"queue": task.queue, "is_named": False, "handler": "task", "tenant_id": None}
        assert tx.claim_tasks(**given, takers=["poller"]).tasks
        tx.release_stale_tasks(timedelta(seconds=60), 10_000)
        assert tx.claim_tasks(**given, takers=["other"]).tasks == []
    house.elapse(timedelta(seconds=61))
    with house.store.transaction() as tx:
        assert tx.release_stale_tasks(timedelta(seconds=60), 10_000) == 1
    stored = house.read_step(flow)
    assert stored is not None
    assert (stored.state, stored.id, stored.token, stored.attempt) == (StepState.READY, task.id, None, 0)
