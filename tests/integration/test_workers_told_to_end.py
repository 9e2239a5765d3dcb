"""A process that is told to end stores what it has finished, and leaves the rest to others."""

import signal
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance
from orchestrator.settings import Settings
from orchestrator.store.session import Store
from tests.support.hands import hands_of
from tests.support.stack import NAMESPACE, TENANT, define
from workers import StepContext
from workers.registry import Registry

pytestmark = pytest.mark.shares_database


@dataclass(slots=True)
class Ending:
    """A worker process in which a signal arrives while the second handler of a batch runs.

    Args:
        is_of_worker: The whole worker ends.
    """

    engine: Engine
    store: Store
    settings: Settings
    is_of_worker: bool

    def run(self) -> list[tuple[str, int]]:
        """Run a batch of three; gives the states of their steps, and how often each was lost."""
        registry = Registry()
        runs: list[UUID] = []

        def ended_by_signal(ctx: StepContext) -> None:
            runs.append(ctx.instance_id)
            if len(runs) == 2:
                raise SystemExit(signal.SIGTERM - 256)  # as billiard does, wherever Python is

        registry.register("ended_by_signal", ended_by_signal)
        hands = hands_of(self.engine, self.settings, registry, must_stop=lambda: self.is_of_worker and len(runs) > 1)
        hands._pace.quick = frozenset({"ended_by_signal"})
        ids = self._start(3)
        with pytest.raises(SystemExit):
            hands.answer_for_sure("default", None)
        assert hands.has_to_stop()
        with self.store.transaction() as tx:
            rows = tx.query("SELECT id, state, losses FROM steps WHERE instance_id = ANY(%s::uuid[])", (ids,))
            ended = tx.query("SELECT outcome FROM attempts WHERE instance_id = ANY(%s::uuid[])", (ids,))
        assert len(runs) == 2
        assert ("completed",) in ended
        assert ("failed",) not in ended
        return [(state, losses) for _, state, losses in rows]

    def _start(self, count: int) -> list[UUID]:
        sequence_id = define(self.store, [{"type": "step", "id": "a", "handler": "ended_by_signal"}], f"s{uuid4().hex}")
        new = NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE)
        return [started.id for started in self.engine.start_many([new] * count)]


def test_steps_of_a_worker_that_ends_are_given_back(engine: Engine, store: Store, settings: Settings) -> None:
    assert Ending(engine, store, settings, is_of_worker=True).run() == [("ready", 0), ("ready", 0)]


def test_steps_of_a_process_that_ends_alone_are_lost(engine: Engine, store: Store, settings: Settings) -> None:
    """It may be a handler that has sent the signal."""
    assert Ending(engine, store, settings, is_of_worker=False).run() == [("ready", 1), ("ready", 1)]
