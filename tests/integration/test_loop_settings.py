"""What settings of the contract do to the loops: caps, paces, retention."""

from collections import Counter
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from orchestrator.clock import MachineTime
from orchestrator.dispatcher import choose
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance
from orchestrator.loops import JITTERED
from orchestrator.reconciler import Reconciler
from orchestrator.retention import Retention
from orchestrator.settings import Settings
from orchestrator.store import installation, workers
from orchestrator.store.hints import Head
from orchestrator.store.instances import Profile
from orchestrator.store.postgres import postgres_of
from orchestrator.store.session import Store
from orchestrator.timers import Timers
from sequences.signals import Control
from tests.support.stack import NAMESPACE, TENANT, define


def _head(tenant: str) -> Head:
    return Head(step_id=uuid4(), queue="q", handler="h", tenant_id=tenant, priority=1, attempt=0, hints=0)


def test_api_19_a_round_lets_go_so_many_steps_of_a_tenant_and_in_all() -> None:
    heads = [_head("a"), _head("a"), _head("a"), _head("b")]
    room = Counter({"q": 10})
    assert [head.tenant_id for head in choose(heads, room, 256, 0)] == ["a", "b", "a", "a"]
    assert [head.tenant_id for head in choose(heads, room, 256, 1)] == ["a", "b"]
    assert [head.tenant_id for head in choose(heads, room, 3, 2)] == ["a", "b", "a"]


def test_api_19_the_tick_bounds_the_wait_of_an_idle_loop(engine: Engine) -> None:
    engine.settings = engine.settings.model_copy(update={"tick_interval_ms": 3000})
    assert Timers(engine).tick().wait * JITTERED == pytest.approx(3.0, abs=1e-5)
    engine.settings = engine.settings.model_copy(update={"tick_interval_ms": None})
    assert Timers(engine).tick().wait * JITTERED == pytest.approx(0.1, abs=1e-5)


def test_timers_sleep_until_the_very_moment_the_next_one_is_due(engine: Engine, store: Store) -> None:
    """Any other wait would be too long, or one of several."""
    engine.settings = engine.settings.model_copy(update={"tick_interval_ms": 3_600_000})
    delayed = {"type": "step", "id": "a", "handler": "noop", "delay": {"duration": 600_000}}
    sequence = define(store, [delayed], "delayed")
    engine.start_many(
        [NewInstance(sequence_id=sequence, tenant_id=TENANT, namespace=NAMESPACE, profile=Profile(data={}))]
    )
    result = Timers(engine).tick()
    assert result.is_exact
    assert 0 < result.wait <= 600


class Clock:
    """A machine's time that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _claim_silently(engine: Engine, store: Store) -> None:
    """Let a polling worker claim the only task and say nothing for an hour."""
    with store.transaction() as tx:
        tx.execute(
            "UPDATE steps SET state = 'claimed', token = gen_random_uuid(), worker_name = 'w', "
            "claimed_at = clock_timestamp() - interval '1 hour', heartbeat_at = clock_timestamp() - interval '1 hour'"
        )


def _start(engine: Engine, store: Store, count: int = 1, handler: str = "outside") -> list[UUID]:
    sequence = define(store, [{"type": "step", "id": "a", "handler": handler}], f"s{uuid4()}")
    new = NewInstance(sequence_id=sequence, tenant_id=TENANT, namespace=NAMESPACE, profile=Profile(data={}))
    return [started.id for started in engine.start_many([new] * count)]


def test_api_19_silent_tasks_are_looked_for_at_their_own_pace(engine: Engine, store: Store, settings: Settings) -> None:
    clock = Clock()
    slow = settings.model_copy(update={"task_reaper_tick": timedelta(seconds=30)})
    reconciler = Reconciler(engine, slow, MachineTime(monotonic=clock))
    reconciler.tick()
    _start(engine, store)
    _claim_silently(engine, store)
    clock.now = 29.0
    reconciler.tick()
    assert _states(store) == {"claimed"}
    clock.now = 31.0
    reconciler.tick()
    assert _states(store) == {"ready"}


def _states(store: Store) -> set[str]:
    with store.transaction() as tx:
        return {row[0] for row in tx.query("SELECT state FROM steps")}


def test_api_19_rows_of_dead_workers_go_after_their_time(engine: Engine, store: Store, settings: Settings) -> None:
    with store.transaction() as tx:
        workers.register(tx, uuid4(), name="w", kind="celery", queues=["q"], handlers=[], slots=1)
        tx.execute("UPDATE workers SET heartbeat_at = clock_timestamp() - interval '90 seconds'")
    Reconciler(engine, settings).tick()
    assert _count(store, "workers") == 1
    Reconciler(engine, settings.model_copy(update={"node_stale_after": timedelta(seconds=80)})).tick()
    assert _count(store, "workers") == 0


def _count(store: Store, table: str) -> int:
    with store.transaction() as tx:
        return int(tx.query(f"SELECT count(*) FROM {table}")[0][0])


def test_api_19_instances_that_ended_long_ago_are_forgotten(engine: Engine, store: Store) -> None:
    kept, gone, young = _start(engine, store, 3)
    for ended in (gone, young):
        engine.interventions.signal(ended, Control.CANCEL, None)
    with store.transaction() as tx:
        tx.execute("UPDATE instances SET updated_at = updated_at - interval '1 day' WHERE id <> %s", (young,))
    assert Retention(postgres_of(store), timedelta(hours=1)).tick().done == 1
    with store.transaction() as tx:
        left = {row[0] for row in tx.query("SELECT id FROM instances")}
        assert (
            tx.query(
                "SELECT 1 FROM outputs WHERE instance_id = %s UNION ALL SELECT 1 FROM contexts WHERE instance_id = %s",
                (gone, gone),
            )
            == []
        )
    assert left == {kept, young}


def test_the_loops_are_not_said_to_live_while_one_of_them_hangs(
    engine: Engine, store: Store, settings: Settings
) -> None:
    Reconciler(engine, settings, are_well=lambda: False).tick()
    with store.transaction() as tx:
        assert installation.read(tx, "service_heartbeat") is None
    Reconciler(engine, settings, are_well=lambda: True).tick()
    with store.transaction() as tx:
        assert installation.read(tx, "service_heartbeat") is not None
