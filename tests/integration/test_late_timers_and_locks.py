"""What others have changed since it was seen, and statements over many rows that wait for nobody."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from orchestrator import errands
from orchestrator.core.model import ROOT_KEY, Instance
from orchestrator.settings import Settings
from orchestrator.store import hints, letters, timers, workers
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Transaction
from orchestrator.store.timers import Due
from tests.support.blocked import LONG, wait_until_blocked
from tests.support.drive import Flow, StoredWorld, loop, parallel, step, sub_sequence

pytestmark = pytest.mark.shares_database

HOUR = timedelta(hours=1)


@pytest.fixture
def world(store: PostgresStore, settings: Settings) -> StoredWorld:
    return StoredWorld(store, settings)


def seen_due(world: StoredWorld, flow: Flow) -> list[Due]:
    with world.store.transaction() as tx:
        return [due for due in tx.due_timers(100) if due.instance_id == flow.id]


@pytest.mark.parametrize("kind", ["start", "loop"])
def test_s9_2_timer_that_was_put_off_after_it_was_seen_does_not_fire(world: StoredWorld, kind: str) -> None:
    if kind == "start":
        flow = world.start([step("a")], not_before=world.now() + HOUR)
    else:
        flow = world.start([loop("l", [step("a")], poll_interval=3600, max_iterations=2)]).run()
    assert flow.check().state == "scheduled"
    world.elapse(flow.id, HOUR)
    seen = seen_due(world, flow)
    assert len(seen) == 1
    assert world.reschedule(flow.id, 2 * HOUR) == 1
    assert world.engine.fire(seen) == 0
    assert (flow.check().state, seen_due(world, flow)) == ("scheduled", [])
    world.elapse(flow.id, 2 * HOUR)
    assert world.engine.fire(seen_due(world, flow)) == 1
    assert flow.run().check().state == "completed"


def test_s3_8_children_are_started_some_at_a_time(world: StoredWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "AT_ONCE", 2)
    world.define("child", [step("c", "external")])
    passed: list[int] = []
    messenger = world.engine.passage._messenger
    pass_on = messenger._pass
    messenger._pass = lambda events: (passed.append(len(events)), pass_on(events))[1]
    flow = world.start([parallel("p", *([sub_sequence(f"s{n}", "child")] for n in range(5)))])
    assert passed == [2, 2, 1]
    assert [child.check().state for child in flow.children()] == ["waiting"] * 5


def at_once(tx: Transaction) -> None:
    """Let a statement that would wait for another transaction fail at once."""
    tx.execute("SET LOCAL lock_timeout = '1ms'")


def held_rows(tx: Transaction, table: str, instance_id: UUID) -> list[Any]:
    return tx.query(f"SELECT 1 FROM {table} WHERE instance_id = %s ORDER BY 1 FOR UPDATE", (instance_id,))


def test_all_hints_are_forgotten_without_waiting_for_a_step_that_is_being_written(world: StoredWorld) -> None:
    busy, free = world.start([step("a")]), world.start([step("a")])
    with world.store.transaction() as other:
        assert held_rows(other, "steps", busy.id)
        with world.store.transaction() as tx:
            at_once(tx)
            assert hints.forget(tx) == 1
    assert [flow.steps()[0].hinted_at is None for flow in (busy, free)] == [False, True]


def test_an_instance_is_loaded_as_who_held_it_has_left_it_and_at_the_time_of_that(world: StoredWorld) -> None:
    flow = world.start([step("a", "external")])

    def load() -> tuple[datetime, dict[UUID, Instance]]:
        with world.store.transaction() as tx:
            return tx.lock_and_load([flow.id])

    with ThreadPoolExecutor(1) as other:
        with world.store.transaction() as tx:
            held = tx.load_instances([flow.id])[flow.id]
            tx.execute("UPDATE instances SET version = version + 1 WHERE id = %s", (flow.id,))
            loaded = other.submit(load)
            wait_until_blocked(world.store, loaded)
            left_at = tx.now()
        now, found = loaded.result(LONG)
    assert found[flow.id].version == held.version + 1
    assert now > left_at


def test_spent_timers_are_dropped_without_waiting_for_one_that_is_being_written(world: StoredWorld) -> None:
    flows = [world.start([step("a")], not_before=world.now() + HOUR) for _ in range(3)]
    due = [Due(instance_id=flow.id, key=ROOT_KEY, due_at=world._all_timers(flow.id)[ROOT_KEY]) for flow in flows]
    with world.store.transaction() as other:
        assert held_rows(other, "timers", flows[1].id)
        with world.store.transaction() as tx:
            at_once(tx)
            timers.drop(tx, due)
    assert [bool(world._all_timers(flow.id)) for flow in flows] == [False, True, False]


def test_silent_workers_are_removed_without_waiting_for_one_that_is_heard_of(world: StoredWorld) -> None:
    ids = [UUID(int=number) for number in (1, 2, 3)]
    with world.store.transaction() as tx:
        for worker_id in ids:
            workers.register(tx, worker_id, name="w", kind="celery", queues=["q"], handlers=["noop"], slots=1)
    with world.store.transaction() as other:
        assert workers.beat(other, ids[1])
        with world.store.transaction() as tx:
            at_once(tx)
            assert workers.remove_silent(tx, timedelta(seconds=-60)) == 2


def test_letters_are_put_off_without_waiting_for_one_that_is_being_opened(world: StoredWorld) -> None:
    flow = world.start([step("a", "external")])
    with world.store.transaction() as tx:
        for number in (1, 2):
            tx.execute(
                "INSERT INTO letters (recipient_id, id, sender_id, kind, body, due_at) "
                "VALUES (%s, %s, %s, 'x', '{}', clock_timestamp())",
                (flow.id, UUID(int=number), flow.id),
            )
    with world.store.transaction() as other:
        assert other.query("SELECT 1 FROM letters WHERE id = %s FOR UPDATE", (UUID(int=1),))
        with world.store.transaction() as tx:
            at_once(tx)
            letters.postpone(tx, flow.id, HOUR)
            put_off = "SELECT id FROM letters WHERE recipient_id = %s AND due_at > clock_timestamp() + %s"
            assert tx.query(put_off, (flow.id, HOUR / 2)) == [(UUID(int=2),)]
