"""Reports that are committed together, and what each of them may leave to others."""

from typing import Any

import pytest

from orchestrator import turnstile
from orchestrator.core.outcomes import Completed
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance, Report, Wish
from orchestrator.settings import Settings
from orchestrator.store.claiming import Worker
from orchestrator.store.instances import Profile
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store, Transaction
from orchestrator.turnstile import Turnstile
from tests.support.drive import StoredWorld, fail, for_each, parallel, step
from tests.support.stack import NAMESPACE, TENANT, define


@pytest.fixture
def world(store: Store, settings: Settings) -> StoredWorld:
    return StoredWorld(store, settings)


@pytest.mark.parametrize("carry", [False, True])
def test_step_that_a_later_report_of_the_batch_cancels_is_not_handed_out(world: StoredWorld, *, carry: bool) -> None:
    """The first report makes `b` ready, the second stops its branch: `b` must be gone after the commit."""
    flow = world.start([parallel("p", [step("a"), step("b")], [fail("f")], failure_policy="fail_fast")])
    claims = world.claim_many()
    assert [claim.key.block_id for claim in claims] == ["a", "f"]
    reports = [(claim, world.outcome(world.work(claim))) for claim in claims]
    assert world.finish(reports, carry=carry) == []
    assert flow.check().state == "failed"
    assert flow.tree()["b"] == "cancelled"


def test_items_of_steps_that_run_at_once_come_with_their_claims_and_their_ends_are_decided_in_memory(
    world: StoredWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question for all items, and none under the lock for the for_each around them."""
    messages, fresh = list[bytes](), list[object]()
    send, decide = Transaction._send, Turnstile._decide_under_lock

    def noted(tx: Transaction, statement: bytes) -> None:
        messages.append(b";".join([*tx._waiting, statement]))
        send(tx, statement)

    def decided(own: Turnstile, tx: Any, events: Any, now: Any) -> Any:
        fresh.append(events)
        return decide(own, tx, events, now)

    flow = world.start(
        [for_each("each", "items", [step("a", params={"seen": "{{ data.item }}"})], concurrency=8)],
        data={"items": [10, 20, 30, 40]},
    )
    world.engine.now()  # a process that has not been told the time decides nothing in memory
    monkeypatch.setattr(Transaction, "_send", noted)
    monkeypatch.setattr(Turnstile, "_decide_under_lock", decided)
    claims = world.claim_many()
    assert [b"EXECUTE items_of_one" in message for message in messages].count(True) == 1
    messages.clear()
    work = world.engine.inputs(claims)
    assert not any(b"items" in message for message in messages)
    assert [each.params for each in work] == [{"seen": item} for item in (10, 20, 30, 40)]
    world.finish([(each.claim, world.outcome(each)) for each in work])
    assert fresh == []
    assert flow.check().state == "completed"


def test_steps_of_one_instance_that_others_work_on_too_are_decided_under_the_lock_alone(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until nobody else has changed it between two commits of this process."""
    here, there = Engine(PostgresStore(store.url), None, settings), Engine(PostgresStore(store.url), None, settings)
    parallel_steps = for_each("each", "items", [step("a", handler="plain")], concurrency=20)
    request = NewInstance(
        sequence_id=define(store, [parallel_steps], "plain"),
        tenant_id=TENANT,
        namespace=NAMESPACE,
        profile=Profile(data={"items": list(range(20))}),
    )
    here.start_many([request])
    for engine in (here, there):
        engine.now()  # a process that has not been told the time decides nothing in memory
    in_memory = list[bool]()
    decide = turnstile.decide_all

    def noted(current: Any, events: Any, facts: Any) -> Any:
        in_memory.append(True)
        return decide(current, events, facts)

    monkeypatch.setattr(turnstile, "decide_all", noted)
    wish = Wish(queue="default", handlers=["plain"], together=frozenset({"plain"}), limit=2)

    def run(engine: Engine) -> bool:
        """Run two steps; tells whether they were decided in memory."""
        in_memory.clear()
        work = engine.inputs(engine.claim(Worker(id=None, name="w"), wish))
        assert len(work) == 2
        assert not engine.finish([Report(claim=each.claim, outcome=Completed(output={})) for each in work]).stale
        return bool(in_memory)

    work = here.inputs(here.claim(Worker(id=None, name="w"), wish))
    assert run(there)
    in_memory.clear()
    here.finish([Report(claim=each.claim, outcome=Completed(output={})) for each in work])
    assert in_memory  # in vain
    run(there)
    assert not run(here)
    run(there)
    assert not run(here)
    assert not run(here)
    assert run(here)
    with store.transaction() as tx:
        assert tx.query("SELECT count(*) FROM outputs WHERE block_id = 'a'")[0][0] == 16
