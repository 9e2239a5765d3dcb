"""A worker that is not heard of is taken for dead: it neither claims nor begins anything until it is heard again."""

import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from orchestrator import embedded
from orchestrator.clock import MachineTime
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import NewInstance
from orchestrator.settings import Settings
from orchestrator.store import instances
from orchestrator.store.interface import Store
from orchestrator.store.session import Store as Tables
from tests.support.hands import hands_of
from tests.support.stack import NAMESPACE, TENANT, Stack, define
from tests.support.waiting import wait_until
from workers.executor import Executor
from workers.lease import USED, Lease
from workers.registry import Registry
from workers.runtime import Identity
from workers.supervisor import Supervisor

pytestmark = pytest.mark.shares_database


def _yes() -> bool:
    return True


def _no() -> bool:
    return False


class Shop:
    """Handlers that count their runs, in a worker whose lease the test decides on."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.runs: Counter[str] = Counter()
        self.answers: list[Callable[[], bool]] = []
        """Who is asked next for the lease; it holds when all of these have been asked."""
        self.terms: Iterator[float] = itertools.repeat(0.0)
        """The terms in which it holds, one for each question."""
        registry = Registry()
        registry.register("plain", lambda: self.runs.update(["plain"]), instant=True)
        registry.register("awaited", self._awaited)
        self.settings, self.registry = settings, registry
        self.hands = hands_of(engine, settings, registry, term=self._term)

    def _term(self) -> float | None:
        return next(self.terms) if not self.answers or self.answers.pop(0)() else None

    async def _awaited(self) -> None:
        self.runs["awaited"] += 1


@pytest.fixture
def shop(engine: Engine, settings: Settings) -> Iterator[Shop]:
    made = Shop(engine, settings)
    yield made
    made.hands.close(30)


def start(engine: Engine, store: Tables, handler: str, times: int = 1) -> list[UUID]:
    sequence_id = define(store, [{"type": "step", "id": "a", "handler": handler}], f"s{uuid4().hex}")
    request = NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE)
    return [started.id for started in engine.start_many([request] * times)]


def _states(store: Tables, ids: list[UUID]) -> set[str]:
    with store.transaction() as tx:
        return set(instances.states_of(tx, ids).values())


def _until_ended(hands: Executor, store: Tables, ids: list[UUID]) -> None:
    def is_over() -> bool:
        hands.answer("default", None)
        return _states(store, ids) == {"completed"}

    wait_until(is_over, "all to be completed")


@pytest.mark.parametrize("handler", ["plain", "awaited"])
def test_a_step_whose_lease_is_over_is_given_back_unbegun(
    shop: Shop, engine: Engine, store: Tables, handler: str
) -> None:
    ids = start(engine, store, handler)
    shop.answers = [_yes, _no]  # asked before the claim, and before the handler
    shop.hands.answer("default", None)
    _until_ended(shop.hands, store, ids)
    assert not shop.answers
    assert shop.runs == {handler: 1}
    with store.transaction() as tx:
        assert tx.query("SELECT outcome FROM attempts WHERE instance_id = %s", (ids[0],)) == [("completed",)]


@pytest.mark.parametrize("handler", ["plain", "awaited"])
def test_a_step_that_was_claimed_before_the_worker_was_silent_is_given_back_unbegun(
    shop: Shop, engine: Engine, store: Tables, monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    """It may wake up after its parent, and find a lease that holds again."""
    ids = start(engine, store, handler)
    shop.terms = itertools.chain([1.0], itertools.repeat(2.0))
    given_back: list[int] = []
    give_back = engine.give_back
    monkeypatch.setattr(engine, "give_back", lambda claims: (given_back.append(len(claims)), give_back(claims)))
    _until_ended(shop.hands, store, ids)
    assert given_back == [1]
    assert shop.runs == {handler: 1}


def test_what_is_others_by_now_is_not_begun(shop: Shop, engine: Engine, settings: Settings, store: Tables) -> None:
    ids = start(engine, store, "plain", 3)
    others = Engine(engine.store, lambda _hints: None, settings)

    def take_over() -> bool:
        with store.transaction() as tx:
            [[worker_id]] = tx.query("SELECT DISTINCT worker_id FROM steps WHERE state = 'claimed'")
        with engine.store.transaction() as tx:
            claims = tx.claims_of(worker_id)
        assert others.lose(claims, "the worker stopped its heartbeat") == 3
        hands = hands_of(others, settings, shop.registry)
        _until_ended(hands, store, ids)
        hands.close(1)
        return False

    shop.answers = [_yes, take_over, _no, _no]
    shop.hands.answer("default", None)
    assert not shop.answers
    assert shop.runs == {"plain": 3}


def test_nothing_is_claimed_until_the_worker_is_heard_of(shop: Shop, engine: Engine, store: Tables) -> None:
    ids = start(engine, store, "plain")
    shop.answers = [_no] * 3
    shop.hands.answer("default", None)
    assert not shop.answers
    assert _states(store, ids) == {"completed"}


def test_a_worker_that_has_to_stop_waits_for_no_lease(shop: Shop, engine: Engine, store: Tables) -> None:
    ids = start(engine, store, "plain")
    shop.answers = [_no] * 1000
    shop.hands.is_stopping = True
    assert shop.hands.answer("default", None) == 0
    assert _states(store, ids) != {"completed"}


def test_what_ran_in_time_is_committed_and_nothing_is_carried_on_with(
    shop: Shop, engine: Engine, store: Tables
) -> None:
    blocks = [{"type": "step", "id": each, "handler": "plain"} for each in "ab"]
    sequence_id = define(store, blocks, f"s{uuid4().hex}")
    request = NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE)
    [started] = engine.start_many([request])
    shop.answers = [_yes, _yes, _no]
    _until_ended(shop.hands, store, [started.id])
    assert shop.runs == {"plain": 2}


class Parent:
    """A supervisor over the store, with a clock of the test's."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.now = 1000.0
        self.lease = Lease(lambda: self.now)
        self.identity = Identity(id=uuid4(), name="w", queues=("default",), lease=self.lease)
        self.supervisor = Supervisor(
            engine, self.identity, ["plain"], 1, settings, machine=MachineTime(monotonic=lambda: self.now)
        )

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.supervisor.tick()


def test_a_lease_holds_from_before_a_heartbeat_for_less_than_the_worker_lives(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = Parent(engine, settings)
    assert parent.lease.term() is None
    parent.supervisor.register()
    assert parent.lease.term() is not None
    lasts = USED * settings.dead_after.total_seconds()
    parent.now += lasts + 0.001
    assert parent.lease.term() is None
    began = parent.now
    beat = type(engine.store).transaction

    def slow(store: Store, **options: bool) -> object:
        parent.now += 1  # the question takes a second
        return beat(store, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(engine.store), "transaction", slow)
        parent.supervisor.tick()
    parent.now = began + lasts - 0.001
    assert parent.lease.term() is not None
    parent.now = began + lasts
    assert parent.lease.term() is None


def test_a_term_lasts_as_long_as_the_worker_is_heard_of_in_time(engine: Engine, settings: Settings) -> None:
    parent = Parent(engine, settings)
    parent.supervisor.register()
    first = parent.lease.term()
    for _ in range(5):
        parent.pass_time(settings.heartbeat.total_seconds())
        assert parent.lease.term() == first
    parent.pass_time(USED * settings.dead_after.total_seconds() + 0.001)
    second = parent.lease.term()
    assert second not in {None, first}
    with engine.store.transaction() as tx:
        tx.remove_worker(parent.identity.id)
    parent.pass_time(settings.heartbeat.total_seconds())
    assert parent.lease.term() not in {None, first, second}


def test_a_store_that_does_not_answer_renews_no_lease(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = Parent(engine, settings)
    parent.supervisor.register()

    def away(_store: Store, **_options: bool) -> object:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(type(engine.store), "transaction", away)
        for _ in range(6):
            parent.pass_time(1)
    assert parent.lease.term() is None
    parent.pass_time(1)
    assert parent.lease.term() is not None


def test_a_worker_that_was_declared_dead_has_a_lease_again_once_it_is_registered(
    engine: Engine, settings: Settings
) -> None:
    parent = Parent(engine, settings)
    parent.supervisor.register()
    parent.now += 100
    with engine.store.transaction() as tx:
        tx.remove_worker(parent.identity.id)
    parent.supervisor.tick()
    assert parent.lease.term() is not None


@pytest.mark.timeout(200)
def test_children_of_a_parent_that_stands_still_take_nothing(
    servers: embedded.Servers, migrated_template: str, tmp_path: Path
) -> None:
    times = {"ORCHESTRATOR_HEARTBEAT": "300ms", "ORCHESTRATOR_DEAD_AFTER": "1500ms"}
    with Stack.running(tmp_path / "stack", servers=servers, template=migrated_template, env=times) as stack:
        sequence_id = stack.define([{"type": "step", "id": "a", "handler": "effect", "params": {"ms": 500}}])
        stack.wait_for_end(stack.start_instances(sequence_id, 1))
        silence = "SELECT extract(epoch FROM clock_timestamp() - max(heartbeat_at)) FROM workers"
        os.kill(stack.pid("worker"), signal.SIGSTOP)
        try:
            wait_until(lambda: stack.query(silence, ())[0][0] > 1.6, "the worker to be taken for dead")
            ids = stack.start_instances(sequence_id, 5)
            wait_until(lambda: stack.query(silence, ())[0][0] > 4, "the worker to be silent for long")
        finally:
            os.kill(stack.pid("worker"), signal.SIGCONT)
        stack.wait_for_end(ids)
        lost = "SELECT count(*) FROM attempts WHERE outcome = 'lost' AND instance_id = ANY(%s::uuid[])"
        assert stack.query(lost, (ids,)) == [(0,)]
        assert Counter(each.key for each in stack.effects.executions()).most_common(1)[0][1] == 1
