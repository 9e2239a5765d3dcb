"""What the reconciler makes of silence: a worker that cannot reach the store is not dead."""

from contextlib import contextmanager
from uuid import uuid4

import pytest

from orchestrator.clock import MachineTime
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.reconciler import Reconciler
from orchestrator.settings import Settings
from orchestrator.store import workers
from orchestrator.store.claiming import Worker
from orchestrator.store.session import Store
from tests.integration.test_workers_claims import STEP, claim, start


class Clock:
    """A monotonic clock that tests set."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def silent_worker(engine: Engine, store: Store) -> Worker:
    """A worker that holds a claim and was last heard long ago."""
    worker = Worker(id=uuid4(), name="w", slot=1)
    start(engine, store, STEP)
    claim(engine, worker)
    with store.transaction() as tx:
        workers.register(tx, worker.id, name="w", kind="celery", queues=["default"], handlers=["noop"], slots=1)
        tx.execute("UPDATE workers SET heartbeat_at = clock_timestamp() - interval '10 seconds'")
    return worker


def test_the_silent_are_dead_once_the_store_has_answered_for_two_heartbeats(
    engine: Engine, settings: Settings, silent_worker: Worker, clock: Clock
) -> None:
    reconciler = Reconciler(engine, settings, MachineTime(monotonic=clock.monotonic))
    assert reconciler.tick().done == 0
    clock.at += 3.9
    assert reconciler.tick().done == 0
    clock.at += 0.2
    assert reconciler.tick().done == 1


def test_an_outage_of_the_store_kills_no_worker(
    engine: Engine, settings: Settings, silent_worker: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler = Reconciler(engine, settings, MachineTime(monotonic=clock.monotonic))
    reconciler.tick()
    clock.at += 60

    @contextmanager
    def unavailable(**_options):
        raise StoreUnavailable("down")
        yield

    with monkeypatch.context() as away:
        away.setattr(engine.store, "transaction", unavailable)
        with pytest.raises(StoreUnavailable):
            reconciler.tick()
    assert reconciler.tick().done == 0, "the worker has had no time to be heard"
    with engine.store.transaction() as tx:
        workers.beat(tx, silent_worker.id)
    clock.at += 60
    assert reconciler.tick().done == 0
