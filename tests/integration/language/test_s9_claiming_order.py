"""Section 9.3: which flow's step a worker gets, and when a flow yields."""

from datetime import timedelta
from uuid import uuid4

import pytest

from orchestrator.carry import CarryOn
from orchestrator.core.outcomes import Completed
from orchestrator.exchange import Report, Wish
from orchestrator.settings import Settings
from orchestrator.store.claiming import Worker
from tests.support.drive import StoredWorld, step

pytestmark = pytest.mark.shares_database

LOW, NORMAL, HIGH = 0, 1, 2


@pytest.fixture
def world(store) -> StoredWorld:
    """A database of its own: other flows would stand in the queue."""
    return StoredWorld(store, Settings())


def claimed(world: StoredWorld, step_id=None):
    wish = Wish(queue="default", handlers=["noop"])
    return [claim.instance_id for claim in world.engine.claim(Worker(id=uuid4(), name="w"), wish, step_id=step_id)]


def test_s9_3_due_flows_go_by_priority_and_then_by_the_moment_they_were_due(world: StoredWorld) -> None:
    now = world.now()
    due = {name: now - timedelta(seconds=age) for name, age in {"late": 1, "early": 9, "middle": 5}.items()}
    flows = {name: world.start([step("a")], not_before=moment).id for name, moment in due.items()}
    flows["urgent"] = world.start([step("a")], priority=HIGH).id
    flows["idle"] = world.start([step("a")], priority=LOW, not_before=now - timedelta(days=1)).id
    order = [owner for _ in flows for owner in claimed(world)]
    assert order == [flows[name] for name in ("urgent", "early", "middle", "late", "idle")]


def test_s9_3_flows_fired_in_one_tick_keep_the_order_of_their_moments(world: StoredWorld) -> None:
    later = world.now() + timedelta(hours=1)
    flows = [world.start([step("a")], not_before=later + timedelta(seconds=s)).id for s in (3, 1, 2)]
    with world.store.transaction() as tx:
        tx.execute("UPDATE timers SET due_at = due_at - interval '2 hours'")
        due = tx.due_timers(10)
    assert world.engine.fire(due) == 3
    assert [owner for _ in flows for owner in claimed(world)] == [flows[1], flows[2], flows[0]]


def test_s9_3_a_hint_for_a_lesser_step_brings_the_more_urgent_one(world: StoredWorld) -> None:
    lesser = world.start([step("a")])
    urgent = world.start([step("a")], priority=HIGH)
    hinted = lesser.steps()[0].id
    assert claimed(world, hinted) == [urgent.id]
    assert claimed(world, hinted) == [lesser.id]


@pytest.mark.parametrize(("priority", "goes_on"), [(HIGH, True), (NORMAL, False)])
def test_s9_3_a_flow_yields_between_two_steps_when_a_higher_one_waits(
    world: StoredWorld, priority: int, *, goes_on: bool
) -> None:
    flow = world.start([step("a"), step("b")], priority=priority)
    claim = flow.claim("a")
    world.start([step("a")], priority=HIGH)
    carry = CarryOn(
        worker=world.worker,
        queues=frozenset({"default"}),
        handlers=frozenset({"noop"}),
        instant=frozenset({"noop"}),
        limit=32,
        rounds_left=lambda _instance_id: 100,
        least_priority=world.engine.most_urgent({"default"}, {"noop"}),
    )
    finished = world.engine.finish([Report(claim=claim, outcome=Completed(output={}))], carry)
    assert bool(finished.claims) == goes_on
    assert flow.standing() == {"b": "claimed" if goes_on else "ready"}
