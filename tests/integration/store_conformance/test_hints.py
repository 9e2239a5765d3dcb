"""Which steps are to be hinted, and for how long a hint is out."""

from datetime import timedelta
from uuid import UUID

from orchestrator.core.model import Instance, NodeKey
from orchestrator.core.states import StepState
from tests.integration.store_conformance.house import ALL, House

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


def test_a_ready_step_is_there_with_a_hint_and_without(house: House) -> None:
    ready = house.step(house.instance())
    with house.store.transaction(is_single=True) as tx:
        assert tx.has_ready_steps()
    with house.store.transaction() as tx:
        tx.mark_hinted([ready.id])
        assert tx.has_ready_steps()


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
