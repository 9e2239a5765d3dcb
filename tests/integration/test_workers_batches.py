"""Ordinary handlers that are quick are run several at a time and committed together; a slow one holds up no other."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.core.model import Claim, NodeKey
from orchestrator.engine import Engine
from orchestrator.exchange import Finished, NewInstance, Report
from orchestrator.settings import Settings
from orchestrator.store import instances
from orchestrator.store.session import Store
from tests.support.hands import hands_of
from tests.support.stack import NAMESPACE, TENANT, define
from tests.support.waiting import wait_until
from workers import StepContext
from workers.executor import Executor, _grouped
from workers.pace import TRUSTED_AFTER
from workers.registry import Registry

MANY = 20


class Slow:
    """A handler that is quick but for the instances that a test holds up."""

    def __init__(self) -> None:
        self.runs: Counter[UUID] = Counter()
        self.held: set[UUID] = set()
        self.is_held = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, ctx: StepContext) -> None:
        self.runs[ctx.instance_id] += 1
        if ctx.instance_id in self.held:
            self.is_held.set()
            assert self.go_on.wait(60)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def hands(engine: Engine, settings: Settings, slow: Slow) -> Iterator[Executor]:
    registry = Registry()
    registry.register("plain", slow.__call__)
    made = hands_of(engine, settings, registry)
    yield made
    made.close(30)


def start(engine: Engine, store: Store) -> list[UUID]:
    sequence_id = define(store, [{"type": "step", "id": "a", "handler": "plain"}], f"s{uuid4().hex}")
    request = NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE)
    return [started.id for started in engine.start_many([request] * MANY)]


def states(store: Store, ids: Sequence[UUID]) -> Counter[str]:
    with store.transaction() as tx:
        return Counter(instances.states_of(tx, ids).values())


@contextmanager
def counted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the reports of each commit."""
    sizes: list[int] = []
    finish = engine.finish

    def noting(reports: Sequence[Report], carry_on: Any = None) -> Finished:
        sizes.append(len(reports))
        return finish(reports, carry_on)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "finish", noting)
        yield sizes


def test_quick_handlers_come_to_be_committed_together(
    engine: Engine, store: Store, hands: Executor, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(engine, store)
    with counted(engine, monkeypatch) as sizes:
        hands.answer("default", None)
    assert sizes[:TRUSTED_AFTER] == [1] * TRUSTED_AFTER
    assert sum(sizes) == MANY
    assert max(sizes) > 1
    assert states(store, started) == {"completed": MANY}
    assert set(slow.runs.values()) == {1}


def test_a_step_that_turns_slow_holds_up_no_other(engine: Engine, store: Store, hands: Executor, slow: Slow) -> None:
    start(engine, store)
    hands.answer("default", None)  # the handler is trusted from here on
    started = start(engine, store)
    slow.held = {started[1]}
    answering = threading.Thread(target=hands.answer, args=("default", None))
    answering.start()
    assert slow.is_held.wait(60)
    wait_until(lambda: states(store, started)["completed"] == 1, "what was finished before the slow step is committed")
    others = Registry()
    others.register("plain", slow.__call__)
    another = hands_of(engine, hands._settings, others)
    wait_until(
        lambda: another.answer("default", None) or states(store, started)["completed"] == MANY - 1, "others go on"
    )
    assert states(store, started)["completed"] == MANY - 1
    slow.go_on.set()
    answering.join(60)
    another.close(30)
    assert states(store, started) == {"completed": MANY}
    assert set(slow.runs.values()) == {1}


def test_a_step_that_has_lost_a_worker_runs_alone() -> None:
    """It may be what kills them: with others in its batch, they would lose theirs too, until all are parked."""
    claim = Claim(
        instance_id=uuid4(),
        step_id=uuid4(),
        key=NodeKey("a"),
        token=uuid4(),
        attempt=0,
        handler="plain",
        queue="default",
        claimed_at=None,  # type: ignore[arg-type]
        expires_at=None,
    )
    suspects = [replace(claim, losses=1), replace(claim, losses=2)]
    assert _grouped([claim, suspects[0], claim, suspects[1]]) == [[claim, claim], [suspects[0]], [suspects[1]]]
    assert _grouped([]) == []
