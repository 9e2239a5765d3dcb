"""Which steps a worker is given, and when a claim is lost."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.core.calendars import LATEST
from orchestrator.core.changes import AttemptRecorded, ContextPut, StepGone, StepPut
from orchestrator.core.model import Claim, NodeKey, Step
from orchestrator.core.states import StepState
from orchestrator.store.claiming import Worker
from orchestrator.store.instances import Profile
from orchestrator.store.workers import Beat
from tests.integration.store_conformance.house import ALL, KEY, House


def test_a_step_is_claimed_once(house: House) -> None:
    flow = house.instance()
    ready = house.step(flow, timeout=timedelta(seconds=9))
    one, two = Worker(id=uuid4(), name="one", slot=7), Worker(id=uuid4(), name="two")
    with house.store.transaction() as tx:
        assert tx.claim_one(ready.id, ["other"], one) is None
        claim = tx.claim_one(ready.id, ALL, one)
        assert tx.claim_one(ready.id, ALL, two) is None
        assert tx.claim_ready(ready.queue, ALL, two, together=ALL, limit=5).steps == []
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


@pytest.mark.parametrize(
    "limit",
    [{"timeout": timedelta.max}, {"timeout": timedelta(days=10_000_000)}, {"deadline_at": LATEST}],
    ids=["longest", "beyond", "latest"],
)
@pytest.mark.parametrize("way", ["one", "ready", "task"])
def test_a_limit_beyond_the_calendar_can_be_read_and_is_never_over(
    house: House, way: str, limit: Mapping[str, Any]
) -> None:
    flow = house.instance()
    ready = house.step(flow, is_queue_named=True, **limit)
    worker = Worker(id=uuid4(), name="w", slot=1)
    with house.store.transaction() as tx:
        if way == "one":
            tx.claim_one(ready.id, ALL, worker)
        elif way == "ready":
            tx.claim_ready(ready.queue, ALL, worker)
        else:
            tx.claim_tasks(queue=ready.queue, is_named=True, handler=ready.handler, tenant_id="t", takers=["w"])
    stored = house.read_step(flow)
    assert stored is not None
    assert stored.state is StepState.CLAIMED
    assert stored.expires_at is not None
    assert stored.expires_at.year == 9999
    if way != "task":
        with house.store.transaction() as tx:
            assert [claim.expires_at for _, claim in tx.claims_of_slots(worker.id)] == [stored.expires_at]


def test_the_most_urgent_step_is_claimed_first(house: House) -> None:
    flow = house.instance()
    now = house.now()
    for name, priority, age in (("old", 1, 9), ("urgent", 2, 1), ("young", 1, 1)):
        house.step(flow, NodeKey(name), priority=priority, ready_at=now - timedelta(seconds=age))
    house.step(flow, NodeKey("foreign"), handler="other")
    worker = Worker(id=uuid4(), name="w")
    taken: list[tuple[UUID, Step]] = []
    for limit in (2, 9):
        with house.store.transaction() as tx:
            taken += tx.claim_ready(str(flow.id), ALL, worker, together=ALL, limit=limit).steps
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
            taken = tx.claim_ready(queue, ALL, worker, step_id=step_id).steps
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
        return [step.key.block_id for _, step in taken.steps]

    assert claimed() == ["a"]
    assert claimed(made[3].id) == ["d", "b"]
    assert claimed() == ["c"]


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
        assert tx.beat_worker(living.id) == Beat(is_draining=False)
        assert tx.beat_worker(unheard.id) is None
        assert tx.leftovers().claims
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


def test_handlers_are_known_as_long_as_a_worker_that_knows_them_lives(house: House) -> None:
    living, silent = Worker(id=uuid4(), name="living"), Worker(id=uuid4(), name="silent")
    mine = {living: f"l-{living.id}", silent: f"s-{silent.id}"}
    both = f"b-{living.id}"
    with house.store.transaction() as tx:
        for worker, handler in mine.items():
            handlers = [handler, both]
            tx.register_worker(worker.id, name=worker.name, kind="celery", queues=["q"], handlers=handlers, slots=1)
    house.elapse(timedelta(minutes=10))
    with house.store.transaction() as tx:
        assert tx.beat_worker(living.id)
    with house.store.transaction() as tx:
        names, _ = tx.handlers_and_routes(timedelta(minutes=1))
    with house.store.transaction() as tx:
        earlier, _ = tx.handlers_and_routes(timedelta(hours=1))
    assert names & {*mine.values(), both} == {mine[living], both}
    flow = house.instance()
    house.step(flow)
    for alive_within, known in ((None, None), (timedelta(minutes=1), None)):
        with house.store.transaction() as tx:
            assert tx.claim_ready("none", ALL, living, alive_within=alive_within).known is known
    with house.store.transaction() as tx:
        taken = tx.claim_ready(str(flow.id), ALL, living, alive_within=timedelta(minutes=1))
    assert taken.known == (names, {})
    assert earlier >= {*mine.values(), both}


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


def test_a_claim_comes_with_its_instance_and_the_context_for_those_who_read_it(house: House) -> None:
    worker = Worker(id=uuid4(), name="w")
    flow, other = (house.instance(profile=Profile(data={"n": n}, config={"c": n}, audit=[n])) for n in (1, 2))
    for owner, name, handler in ((flow, "a", "noop"), (flow, "b", "plain"), (other, "c", "noop")):
        house.step(owner, NodeKey(name), handler=handler, queue=f"q-{flow.id}")
    known = ["noop", "plain"]
    with house.store.transaction() as tx:
        taken = tx.claim_ready(f"q-{flow.id}", known, worker, together=known, readers=["plain"], limit=9)
    assert sorted((owner, step.key.block_id) for owner, step in taken.steps) == sorted(
        [(flow.id, "a"), (flow.id, "b"), (other.id, "c")]
    )
    assert taken.instances == {flow.id: flow, other.id: other}
    assert taken.contexts == {flow.id: (ContextPut(data={"n": 1}, config={"c": 1}), [1])}
    with house.store.transaction() as tx:
        none_left = tx.claim_ready(f"q-{flow.id}", known, worker)
    assert (none_left.steps, none_left.instances, none_left.contexts) == ([], {}, {})


def test_a_claim_in_a_transaction_that_is_taken_back_is_none(house: House) -> None:
    flow = house.instance()
    ready = house.step(flow)
    worker = Worker(id=uuid4(), name="w")

    def given_up() -> None:
        with house.store.transaction() as tx:
            tx.now()
            assert len(tx.claim_ready(ready.queue, ALL, worker).steps) == 1
            raise KeyError

    with pytest.raises(KeyError):
        given_up()
    with house.store.transaction() as tx:
        assert len(tx.claim_ready(ready.queue, ALL, worker).steps) == 1
    with house.store.transaction() as tx:
        assert len(tx.claims_of(worker.id or uuid4())) == 1
