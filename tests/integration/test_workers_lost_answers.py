"""A commit may take effect although its answer is lost. What it has claimed must not be forgotten by its claimer."""

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Failed, Outcome
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import Wish, Work
from orchestrator.settings import Settings
from orchestrator.store import claiming, hints, instances
from orchestrator.store.session import Store, Transaction
from tests.integration.test_workers_claims import start
from tests.support.hands import hands_of
from tests.support.waiting import wait_until
from workers import StepContext, executor
from workers.executor import Executor
from workers.registry import Registry

pytestmark = pytest.mark.shares_database


class Outage:
    """Loses the answer to some commits: everything is done, and the caller is told that the store is away.

    Args:
        which: Counts the commits that claim something, from 1; the answers to these are lost.
    """

    def __init__(self, store: Store, which: frozenset[int]) -> None:
        self._whole = store.transaction
        self._which = which
        self.claiming = 0
        self.lost = 0

    @contextmanager
    def transaction(self, **options: Any) -> Iterator[Transaction]:
        with self._whole(**options) as tx:
            before = self._claims(tx)
            yield tx
            is_claim = bool(self._claims(tx) - before)
        self.claiming += is_claim
        if is_claim and self.claiming in self._which:
            self.lost += 1
            raise StoreUnavailable("the answer was lost")

    def _claims(self, tx: Transaction) -> set[UUID]:
        return {row[0] for row in tx.query("SELECT token FROM steps WHERE state = 'claimed'")}


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.register("plain", _plain)
    made.register("waiting", _waiting)
    return made


def _plain(ctx: StepContext) -> dict[str, Any]:
    return {"key": ctx.idempotency_key}


async def _waiting(ctx: StepContext) -> dict[str, Any]:
    return {"key": ctx.idempotency_key}


@pytest.fixture
def hands(engine: Engine, settings: Settings, registry: Registry) -> Iterator[Executor]:
    made = hands_of(engine, settings, registry)
    yield made
    made.close(30)


def blocks(handler: str) -> list[dict[str, Any]]:
    return [{"type": "step", "id": f"s{number}", "handler": handler} for number in range(4)]


def state_of(store: Store, instance_id: UUID) -> str:
    with store.transaction() as tx:
        return instances.states_of(tx, [instance_id])[instance_id]


def outcomes(store: Store, instance_id: UUID) -> list[str]:
    with store.transaction() as tx:
        return [row[5] for row in instances.attempts(tx, instance_id)]


@pytest.mark.parametrize("which", [frozenset({1}), frozenset({2}), frozenset({4}), frozenset({1, 2, 3, 4})])
def test_a_lost_answer_costs_no_step(
    engine: Engine, store: Store, hands: Executor, monkeypatch: pytest.MonkeyPatch, which: frozenset[int]
) -> None:
    """The first claim is a doorbell's, the others are made in the commit of the output before them."""
    instance_id = start(engine, store, blocks("plain"))
    outage = Outage(store, which)
    with monkeypatch.context() as patch:
        patch.setattr(store, "transaction", outage.transaction)
        hands.answer("default", None)
    assert outage.lost == len(which)
    assert state_of(store, instance_id) == "completed"
    assert outcomes(store, instance_id) == ["completed"] * 4


def test_a_claim_that_takes_effect_after_the_question_is_found_by_the_next_one(
    engine: Engine, settings: Settings, store: Store, hands: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server works on after the connection was cut; what it claims shows when nobody asks any more."""
    instance_id = start(engine, store, blocks("plain"))
    late = Engine(engine.store, None, settings)
    whole, calls = store.transaction, itertools.count(1)

    @contextmanager
    def transaction(**options: Any) -> Iterator[Transaction]:
        number = next(calls)  # the claim, the question, the claim
        if number == 1:
            raise StoreUnavailable("the connection was cut")
        if number == 3:
            with monkeypatch.context() as patch:
                patch.setattr(store, "transaction", whole)
                assert len(late.claim(hands._worker, Wish(queue="default", handlers=("plain",)))) == 1
        with whole(**options) as tx:
            yield tx

    monkeypatch.setattr("workers.holdings.DOUBT_SECONDS", 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(store, "transaction", transaction)
        hands.answer_for_sure("default", None)
    assert outcomes(store, instance_id) == []
    wait_until(hands.has_to_ask, "it to be time to ask once more")
    hands.answer_for_sure("default", None)
    assert outcomes(store, instance_id) == ["completed"] * 4
    assert not hands.has_to_ask()


class Absence(Outage):
    """Loses the answer to the first claim, and then everything until it has been asked often enough."""

    def __init__(self, store: Store, refusals: int) -> None:
        super().__init__(store, frozenset({1}))
        self.refusals = refusals

    @contextmanager
    def transaction(self, **options: Any) -> Iterator[Transaction]:
        if self.lost and self.refusals:
            self.refusals -= 1
            raise StoreUnavailable("the store is away")
        with super().transaction(**options) as tx:
            yield tx


def test_a_step_whose_claim_outlasts_the_patience_of_its_worker_needs_no_other_hint(
    engine: Engine, store: Store, hands: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance_id = start(engine, store, blocks("plain"))
    absence = Absence(store, 4)
    monkeypatch.setattr("workers.executor.CLAIM_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(store, "transaction", absence.transaction)
    with pytest.raises(StoreUnavailable):
        hands.answer_for_sure("default", None)
    assert absence.refusals == 0
    assert outcomes(store, instance_id) == ["completed"] * 4


def test_claims_that_cannot_be_taken_in_are_run_after_all(
    engine: Engine, store: Store, hands: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim is committed when it is made; what was loaded with it may still be more than this process understands."""
    instance_id = start(engine, store, blocks("plain"))
    briefing = engine._briefing
    remember, takings = briefing.remember, itertools.count(1)

    def failing(taken: claiming.Taken) -> None:
        if next(takings) == 1:
            raise RuntimeError("not understood")
        remember(taken)

    monkeypatch.setattr(briefing, "remember", failing)
    with pytest.raises(RuntimeError):
        hands.answer_for_sure("default", None)
    assert outcomes(store, instance_id) == ["completed"] * 4


def test_what_an_error_leaves_behind_is_found_again(
    engine: Engine, store: Store, hands: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three steps that were claimed together, and run one by one, the second one ends the answer to the hint."""
    ids = [start(engine, store, blocks("plain")[:2]) for _ in range(3)]
    monkeypatch.setattr("workers.executor._grouped", lambda claims: [[claim] for claim in claims])
    monkeypatch.setattr(Executor, "_quick", frozenset({"plain"}))
    run, runs = Executor._run, itertools.count(1)

    def failing(self: Executor, claims: Sequence[Claim], until: float) -> list[Claim]:
        if next(runs) == 2:
            self._holdings.release(claim.token for claim in claims)
            raise StoreUnavailable("the store is away")
        return run(self, claims, until)

    monkeypatch.setattr(Executor, "_run", failing)
    with pytest.raises(StoreUnavailable):
        hands.answer_for_sure("default", None)
    assert [outcomes(store, each) for each in ids] == [["completed"] * 2] * 3


def test_coroutines_that_are_running_are_not_adopted(
    engine: Engine, store: Store, hands: Executor, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are claims of this process, too, and in good hands."""
    calls: list[str] = []
    go_on = threading.Event()

    async def held(ctx: StepContext) -> None:
        calls.append(ctx.idempotency_key)
        while not go_on.is_set():
            await __import__("asyncio").sleep(0.01)

    registry.register("held", held)
    hands = hands_of(engine, hands._settings, registry)  # handlers are looked up once
    waiting = start(engine, store, [{"type": "step", "id": "a", "handler": "held"}])
    hands.answer("default", None)
    plain = start(engine, store, blocks("plain"))
    with monkeypatch.context() as patch:
        patch.setattr(store, "transaction", Outage(store, frozenset({1, 2})).transaction)
        hands.answer("default", None)
    assert state_of(store, plain) == "completed"
    go_on.set()
    hands.close(30)
    assert (state_of(store, waiting), len(calls)) == ("completed", 1)


def test_what_breaks_the_worker_itself_is_parked_in_the_end(
    engine: Engine, store: Store, hands: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither held for ever by a child that knows nothing of it, nor tried again for ever."""

    def broken(work: Work, *_others: Any) -> Outcome | Failed:
        raise LookupError("a bug of ours")

    monkeypatch.setattr(executor, "run", broken)
    instance_id = start(engine, store, blocks("plain"))
    for _ in range(3):
        hands.answer("default", None)
    with store.transaction() as tx:
        [(state, reason)] = tx.query("SELECT state, parked_reason FROM instances WHERE id = %s", (instance_id,))
        assert hints.backlog(tx) == [("default", "held", 1)]
    assert (state, "a bug of ours" in reason) == ("paused", True)


def test_what_a_repeated_commit_claims_is_run_once(
    engine: Engine, store: Store, hands: Executor, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit has failed as a whole; the one that succeeds claims the next step, and names it."""
    executed: list[str] = []

    def counted(ctx: StepContext) -> None:
        executed.append(ctx.block_id)

    registry.register("counted", counted)
    counting = hands_of(engine, hands._settings, registry)
    instance_id = start(engine, store, blocks("counted"))
    finish = engine.finish
    failures = iter([True, False, True])

    def failing_at_times(*arguments: Any) -> Any:
        if next(failures, False):
            raise StoreUnavailable("nothing was done")
        return finish(*arguments)

    monkeypatch.setattr(engine, "finish", failing_at_times)
    counting.answer("default", None)
    counting.close(30)
    assert state_of(store, instance_id) == "completed"
    assert executed == ["s0", "s1", "s2", "s3"]


def test_what_a_broken_up_batch_could_not_give_back_is_run_after_all(
    engine: Engine, store: Store, hands: Executor, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claims stand, nobody has begun them, and this process lives: no reconciler would ever find them."""
    tried = threading.Event()

    def refused(*_arguments: Any) -> None:
        tried.set()
        raise RuntimeError("a deadlock, once too often")

    def slowly(ctx: StepContext) -> dict[str, Any]:
        return {"key": ctx.idempotency_key, "tried": tried.wait(60)}

    registry.register("slow", slowly)
    slow = hands_of(engine, hands._settings, registry)
    slow._pace.quick = frozenset({"slow"})
    flows = [start(engine, store, [{"type": "step", "id": "a", "handler": "slow"}]) for _ in range(3)]
    monkeypatch.setattr(engine, "give_back", refused)
    slow.answer("default", None)
    slow.close(30)
    assert tried.is_set()
    assert [state_of(store, instance_id) for instance_id in flows] == ["completed"] * 3


class Trouble:
    """Lets transactions that change steps fail, a few times, with what a slow server answers: with nothing done."""

    def __init__(self, store: Store, times: int) -> None:
        self._whole = store.transaction
        self.left = times

    @contextmanager
    def transaction(self, **options: Any) -> Iterator[Transaction]:
        with self._whole(**options) as tx:
            if self.left:
                self.left -= 1
                tx.query("SELECT set_config('statement_timeout', '1ms', true)")
                tx.query("SELECT pg_sleep(10)")
            yield tx


@pytest.mark.parametrize("times", [1, 4])
def test_a_server_that_takes_too_long_costs_no_outcome(
    engine: Engine, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The step has run: it has not failed because its outcome could not be written for a moment."""
    made = Registry()

    def effect(ctx: StepContext) -> dict[str, Any]:
        monkeypatch.setattr(store, "transaction", Trouble(store, times).transaction)
        ran.append(ctx.idempotency_key)
        return {"key": ctx.idempotency_key}

    ran: list[str] = []
    made.register("plain", effect)
    hands = hands_of(engine, settings, made)
    instance_id = start(engine, store, blocks("plain")[:1])
    hands.answer("default", None)
    hands.close(5)
    assert (state_of(store, instance_id), outcomes(store, instance_id), len(ran)) == ("completed", ["completed"], 1)


def test_what_a_commit_has_claimed_is_run_whatever_the_question_fails_with(
    engine: Engine, store: Store, hands: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a commit was lost, the next one has claimed, and then the store cannot say what else is held."""
    instance_id = start(engine, store, blocks("plain"))
    whole, refusals = engine.held_by, iter([RuntimeError("refused")])

    def held_by(*positional: Any) -> list[Claim]:
        for refusal in refusals:
            raise refusal
        return whole(*positional)

    finish = engine.finish

    def finish_in_doubt(*positional: Any) -> Any:
        hands._holdings.doubt_commit()
        return finish(*positional)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "held_by", held_by)
        patch.setattr(engine, "finish", finish_in_doubt)
        hands.answer("default", None)
    assert state_of(store, instance_id) == "completed"
    assert outcomes(store, instance_id) == ["completed"] * 4


def test_what_a_commit_of_several_has_claimed_is_run_whatever_fails_behind_it(
    engine: Engine, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked after the commit which of the reports came too late, and the store refuses to tell."""
    made = Registry()
    made.register("plain", _plain, instant=True)
    hands = hands_of(engine, settings, made)
    ids = [start(engine, store, blocks("plain")) for _ in range(2)]
    finish, failed = engine.finish, []

    def failing(reports: Sequence[Any], carry_on: Any = None) -> Any:
        finished = finish(reports, carry_on)
        if len(reports) > 1 and finished.claims and not failed:
            failed.append(finished)
            raise RuntimeError("refused")
        return finished

    monkeypatch.setattr(engine, "finish", failing)
    hands.answer("default", None)
    assert len(failed) == 1
    assert [(state_of(store, i), outcomes(store, i)) for i in ids] == [("completed", ["completed"] * 4)] * 2
    hands.close(5)
