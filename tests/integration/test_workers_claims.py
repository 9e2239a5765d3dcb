"""Claims against the real store, without workers: what a claim is worth once it has ended, or its answer was lost."""

from uuid import UUID, uuid4

import pytest

from orchestrator.carry import CarryOn
from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Completed
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance, Report, Wish
from orchestrator.settings import Settings
from orchestrator.store import claiming
from orchestrator.store.claiming import Worker
from orchestrator.store.session import Store
from tests.support.stack import NAMESPACE, TENANT, define

pytestmark = pytest.mark.shares_database

CHILD = Worker(id=uuid4(), name="w", slot=1)


def start(engine: Engine, store: Store, blocks: list[dict[str, object]]) -> UUID:
    sequence_id = define(store, blocks, f"s{uuid4().hex}")
    return engine.start_many([NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE)])[0].id


def claim(engine: Engine, worker: Worker = CHILD, handlers: tuple[str, ...] = ("noop",)) -> Claim:
    [claimed] = engine.claim(worker, Wish(queue="default", handlers=handlers))
    return claimed


@pytest.fixture
def parent(store: Store, settings: Settings) -> Engine:
    """The engine of another process: it does not see what the first one has in memory."""
    return Engine(store, lambda _hints: None, settings)


@pytest.fixture
def silent(store: Store, settings: Settings) -> Engine:
    """The engine of a worker's parent, which sends no hints."""
    return Engine(store, None, settings)


STEP = [{"type": "step", "id": "a", "handler": "noop"}]


def test_a_claim_is_lost_again_and_again_by_one_process(engine: Engine, parent: Engine, store: Store) -> None:
    """A claim does not raise the instance's version: what was remembered of the step must not count."""
    start(engine, store, STEP)
    for _ in range(2):
        assert parent.lose([claim(engine)], "the test says so") == 1


def test_a_report_is_refused_once_the_step_has_another_token(engine: Engine, parent: Engine, store: Store) -> None:
    start(engine, store, STEP)
    old = claim(engine)
    engine.inputs([old])
    assert parent.lose([old], "the test says so") == 1
    new = claim(parent)
    late = Report(claim=old, outcome=Completed(output="late"))
    assert engine.finish([late]).lost == (old,)
    assert parent.finish([Report(claim=new, outcome=Completed(output="new"))]).lost == ()
    assert engine.finish([late]).lost == (old,)


def test_a_report_is_refused_when_the_claim_vanished_without_a_trace(
    engine: Engine, parent: Engine, store: Store
) -> None:
    """A crash of the database may forget a claim, and silent tasks are given back: the version stays the same."""
    start(engine, store, STEP)
    old = claim(engine)
    engine.inputs([old])
    engine.now()  # decisions are made in memory only once the database's time is known
    with store.transaction() as tx:
        tx.execute("UPDATE steps SET state = 'ready', token = NULL, worker_id = NULL WHERE id = %s", (old.step_id,))
    new = claim(parent)
    assert engine.finish([Report(claim=old, outcome=Completed(output="late"))]).lost == (old,)
    assert parent.finish([Report(claim=new, outcome=Completed(output="new"))]).lost == ()


def test_who_sends_no_hints_notes_none_as_sent(engine: Engine, silent: Engine, store: Store) -> None:
    """Else the dispatcher waits for the answer to a hint that nobody sent: 15 s for each child that dies."""
    start(engine, store, STEP)
    silent.lose([claim(engine)], "the test says so")
    with store.transaction() as tx:
        assert tx.query("SELECT state, hinted_at FROM steps") == [("ready", None)]


def test_a_lost_step_goes_to_the_head_of_its_queue(engine: Engine, parent: Engine, store: Store) -> None:
    """Also ahead of what was ready before it: instances started together, of which this one was two steps ahead."""
    sequence_id = define(store, [*STEP, {"type": "step", "id": "b", "handler": "noop"}], "two")
    engine.start_many([NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE)] * 3)
    first = claim(engine)
    carry_on = CarryOn(
        worker=CHILD,
        queues=frozenset({"default"}),
        handlers=frozenset({"noop"}),
        instant=frozenset(),
        limit=1,
        rounds_left=lambda _instance: 1,
    )
    [lost] = engine.finish([Report(claim=first, outcome=Completed(output={}))], carry_on).claims
    parent.lose([lost], "the test says so")
    assert claim(engine).instance_id == lost.instance_id == first.instance_id


def test_a_claim_whose_instance_is_gone_has_no_inputs(engine: Engine, silent: Engine, store: Store) -> None:
    """It used to be asked for again and again, in one endless transaction."""
    start(engine, store, STEP)
    orphan = claim(engine)
    with store.transaction() as tx:
        tx.execute("DELETE FROM instances")
    start(engine, store, STEP)
    other = claim(engine)
    assert [work.claim for work in silent.inputs([orphan, other])] == [other]


def test_a_limit_holds_although_the_planner_takes_the_table_for_empty(engine: Engine, store: Store) -> None:
    """Then the free steps are on the inner side of its join: a sub-select there is run anew for each row."""
    sequence_id = define(store, STEP, "many")
    many = [NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE)] * 20
    engine.start_many(many)
    with store.transaction() as tx:
        tx.execute("DELETE FROM steps")
    with store.transaction() as tx:
        tx.execute("ANALYZE steps")
    engine.start_many(many)
    with store.transaction() as tx:
        for choice in ("hashjoin", "mergejoin", "material", "indexscan", "bitmapscan"):
            tx.execute(f"SET LOCAL enable_{choice} = off")
        claimed = claiming.claim_ready(tx, "default", ["noop"], CHILD, together=["noop"], limit=3).steps
        assert len(claimed) == 3
