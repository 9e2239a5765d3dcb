"""Negative controls: each checker is held against an engine that breaks its promise, and must say so.

The engine runs in this process over the real store; one piece of it is taken out for each control.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.core import attempts, decider
from orchestrator.core.model import Claim, NodeKey, Step
from orchestrator.core.outcomes import Completed, Failed, Outcome, Suspended
from orchestrator.core.steps import complete_step, make_ready
from orchestrator.core.turn import Turn
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance, Report, Wish, Work
from orchestrator.store import instances
from orchestrator.store.claiming import Worker
from orchestrator.store.instances import Profile
from orchestrator.store.session import Store
from orchestrator.timers import Timers
from tests.faults import checkers
from tests.faults.journey import (
    BLOCKS,
    EFFECTS,
    ITEMS,
    SLEEP_SECONDS,
    STEPS,
    Fault,
    Run,
    StepKey,
    record,
)
from tests.support.effects import Execution
from tests.support.stack import ENDED, NAMESPACE, TENANT, define

pytestmark = pytest.mark.fault

COUNT = 3
WORKER = Worker(id=uuid4(), name="hand", slot=1)
WISH = Wish(queue="default", handlers=("effect", "fails_first", "sleep"))
NO_FAULT = Fault(name="nothing", began_at=0, ended_at=0)


class Hand:
    """Does by hand what the workers do, and notes what it has executed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.executions: list[Execution] = []
        self.ids: list[UUID] = []
        self.before_report: Callable[[Claim], None] = lambda _claim: None

    def start(self) -> None:
        """Start some instances of the journey."""
        sequence_id = define(self.engine.store, BLOCKS, f"s{uuid4().hex}")
        data = Profile(data={"items": list(ITEMS)})
        new = NewInstance(sequence_id=sequence_id, tenant_id=TENANT, namespace=NAMESPACE, profile=data)
        self.ids = [started.id for started in self.engine.start_many([new] * COUNT)]

    def claim(self) -> Claim:
        """Claim the next step."""
        [claim] = self.engine.claim(WORKER, WISH)
        return claim

    def work(self, seconds: float = 90) -> None:
        """Work until all instances have ended, or nothing has moved for two seconds and a hundred looks."""
        until, moved_at, looks = time.monotonic() + seconds, time.monotonic(), 0
        while not self._all_have_ended():
            fired = Timers(self.engine).tick().done
            claims = self.engine.claim(WORKER, WISH)
            for work in self.engine.inputs(claims):
                outcome = self._execute(work)
                self.before_report(work.claim)
                self.engine.finish([Report(claim=work.claim, outcome=outcome)])
            if claims or fired:
                moved_at, looks = time.monotonic(), 0
            looks += 1
            if (time.monotonic() - moved_at > 2 and looks > 100) or time.monotonic() > until:
                return

    def _all_have_ended(self) -> bool:
        with self.engine.store.transaction() as tx:
            return all(state in ENDED for state in instances.states_of(tx, self.ids).values())

    def _execute(self, work: Work) -> Outcome:
        claim = work.claim
        if claim.handler == "sleep":
            return Suspended(duration=timedelta(seconds=SLEEP_SECONDS), output={})
        nonce = uuid4().hex
        self.executions.append(
            Execution(
                key=StepKey(claim.instance_id, claim.key.block_id, claim.key.iteration).text,
                nonce=nonce,
                attempt=claim.attempt,
                handler=claim.handler,
                pid=1,
                started_at=time.time(),
                ended_at=time.time(),
                seen=(work.params or {}).get("seen"),
            )
        )
        if claim.handler == "fails_first" and claim.attempt == 0:
            return Failed(message="not yet", retryable=True)
        return Completed(output={"nonce": nonce})

    def record(self) -> Run:
        """Read what has become of the instances."""

        def query(statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
            with self.engine.store.transaction() as tx:
                return tx.query(statement, parameters)

        return record(query, self.executions, self.ids)


@pytest.fixture
def hand(engine: Engine) -> Hand:
    """A worker by hand, with some instances started."""
    made = Hand(engine)
    made.start()
    return made


def write(store: Store, statement: str, *parameters: Any) -> None:
    """Change the database behind the engine's back."""
    with store.transaction() as tx:
        assert tx.execute(statement, parameters) > 0


def verdicts(run: Run, fault: Fault = NO_FAULT) -> dict[str, list[str]]:
    """Ask every checker that judges a run by itself; only those that found something are named."""
    found = {
        "I1": checkers.every_accepted_instance_has_ended(run),
        "I2 one": checkers.every_step_has_one_outcome(run),
        "I2 memo": checkers.what_was_seen_is_what_is_stored(run),
        "I3 after": checkers.nothing_runs_after_its_commit(run),
        "I3 flight": checkers.only_what_was_in_flight_runs_again(run, fault),
        "I4": checkers.tokens_are_used_once(run),
        "I5": checkers.steps_run_in_order(run),
        "I8": checkers.timers_are_never_early(run),
        "enough": checkers.enough_was_done(run, outputs=COUNT * STEPS, executions=COUNT * EFFECTS),
    }
    return {name: wrong for name, wrong in found.items() if wrong}


def test_a_sound_engine_satisfies_every_checker(hand: Hand) -> None:
    hand.work()
    run = hand.record()
    assert verdicts(run) == {}
    assert checkers.outputs_never_change(run.outputs, hand.record().outputs) == []


def test_a_lost_step_may_run_again_if_the_fault_hit_it(hand: Hand) -> None:
    began_at = time.time()
    claim = hand.claim()
    [work] = hand.engine.inputs([claim])
    hand._execute(work)
    hand.engine.lose([claim], "the test says so")
    fault = Fault(name="a death", began_at=began_at, ended_at=time.time(), may_run_again=1)
    hand.work()
    assert verdicts(hand.record(), fault) == {}
    assert "I3 flight" in verdicts(hand.record(), replace(fault, may_run_again=0))


@pytest.mark.parametrize(("pids", "moments", "processes"), [((1, 1), 1, 1), ((1, 2), 1, 2), ((1, 1), 2, 2)])
def test_what_a_process_loses_at_one_moment_counts_once(
    hand: Hand, pids: tuple[int, int], moments: int, processes: int
) -> None:
    began_at = time.time()
    claims = [hand.claim() for _ in pids]
    for work in hand.engine.inputs(claims):
        hand._execute(work)
    hand.executions = [replace(each, pid=pid) for each, pid in zip(hand.executions, pids, strict=True)]
    for lost in [claims] if moments == 1 else [[claim] for claim in claims]:
        hand.engine.lose(lost, "the test says so")
    hand.work()
    fault = Fault(name="deaths", began_at=began_at, ended_at=time.time(), may_run_again=processes)
    assert verdicts(hand.record(), fault) == {}
    assert "I3 flight" in verdicts(hand.record(), replace(fault, may_run_again=processes - 1))


def test_control_a_dropped_instance_is_noticed(hand: Hand, store: Store) -> None:
    write(store, "DELETE FROM instances WHERE id = %s", hand.ids[0])
    hand.work()
    assert any("is gone" in wrong for wrong in verdicts(hand.record())["I1"])


def test_control_a_forgotten_step_is_noticed(hand: Hand, store: Store) -> None:
    write(store, "DELETE FROM steps WHERE instance_id = %s", hand.ids[0])
    hand.work()
    assert {"I1", "I2 one", "enough"} <= set(verdicts(hand.record()))


def test_control_an_output_written_twice_is_noticed(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Turn.add_output

    def twice(self: Turn, key: NodeKey, output: Any, **options: Any) -> None:
        add(self, key, output, **options)
        if key.block_id == "second":
            add(self, key, output, **options)

    monkeypatch.setattr(Turn, "add_output", twice)
    hand.work()
    assert any(":second: 2 outputs" in wrong for wrong in verdicts(hand.record())["I2 one"])


def test_control_a_changed_output_is_noticed(hand: Hand, store: Store) -> None:
    hand.work()
    before = hand.record()
    write(store, "UPDATE outputs SET output = %s WHERE block_id = 'first'", '{"nonce": "another"}')
    assert len(checkers.outputs_never_change(before.outputs, hand.record().outputs)) == COUNT
    assert "I2 memo" in verdicts(hand.record())


def test_control_a_skipped_memo_is_noticed(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step with a stored output is run once more."""
    again: set[NodeKey] = set()

    def forgetful(turn: Turn, step: Step) -> None:
        if step.key.block_id == "first" and step.key not in again:
            again.add(step.key)
            time.sleep(2 * checkers.CLOCK_SECONDS)
            make_ready(turn, replace(step, id=turn.new_id()))
        else:
            complete_step(turn, step)

    monkeypatch.setattr(attempts, "complete_step", forgetful)
    hand.work()
    assert {"I2 one", "I3 after", "I3 flight"} <= set(verdicts(hand.record()))


def test_control_a_needless_repetition_is_noticed(hand: Hand) -> None:
    """A living worker is declared dead: its step runs again although nothing has happened."""
    took: list[Claim] = []

    def declare_dead(claim: Claim) -> None:
        if claim.key.block_id == "second" and not took:
            took.append(claim)
            hand.engine.lose([claim], "nobody knows why")

    hand.before_report = declare_dead
    hand.work()
    assert took
    assert "I3 flight" in verdicts(hand.record())


def _outputs(store: Store) -> int:
    with store.transaction() as tx:
        count: int = tx.query("SELECT count(*) FROM outputs")[0][0]
    return count


def _stale(hand: Hand) -> Claim:
    claim = hand.claim()
    hand.engine.lose([claim], "the test says so")
    return claim


def test_a_sound_fence_refuses_stale_reports(hand: Hand, store: Store) -> None:
    stale = [_stale(hand)]
    assert checkers.stale_reports_are_refused(hand.engine, stale, lambda: _outputs(store)) == []
    hand.claim()
    assert checkers.stale_reports_are_refused(hand.engine, stale, lambda: _outputs(store)) == []


def test_control_a_missing_fence_is_noticed(hand: Hand, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = [_stale(hand)]
    monkeypatch.setattr(decider, "_claimed_step", lambda turn, claim: turn.step(claim.key))
    assert len(checkers.stale_reports_are_refused(hand.engine, stale, lambda: _outputs(store))) == 1


def test_control_a_token_used_twice_is_noticed(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    note = Turn.record_attempt

    def twice(self: Turn, step: Step, *arguments: Any) -> None:
        note(self, step, *arguments)
        note(self, step, *arguments)

    monkeypatch.setattr(Turn, "record_attempt", twice)
    hand.work()
    assert "I4" in verdicts(hand.record())


def test_control_a_step_before_its_turn_is_noticed(hand: Hand) -> None:
    hand.work()
    run = hand.record()
    early = [
        replace(each, started_at=each.started_at - 9) if each.key.endswith(":second") else each
        for each in run.executions
    ]
    assert len(checkers.steps_run_in_order(replace(run, executions=tuple(early)))) == COUNT


@pytest.mark.parametrize(
    ("what", "seconds"), [("delay", "DELAY_SECONDS"), ("back-off", "BACKOFF_SECONDS"), ("sleep", "SLEEP_SECONDS")]
)
def test_control_an_early_timer_is_noticed(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, what: str, seconds: str
) -> None:
    """The engine waits for what it was told, which is too short by far once more is demanded."""
    hand.work()
    run = hand.record()
    assert "I8" not in verdicts(run)
    monkeypatch.setattr(checkers, seconds, 3600.0)
    assert any(what in wrong for wrong in verdicts(run)["I8"])


def test_control_a_slow_recovery_is_noticed(hand: Hand) -> None:
    key = StepKey(hand.ids[0], "first")
    died_at = time.time()
    assert "never done" in checkers.work_goes_on_within(timedelta(seconds=8), hand.record(), [key], died_at)[0]
    hand.work()
    run = hand.record()
    assert checkers.work_goes_on_within(timedelta(seconds=8), run, [key], died_at) == []
    assert len(checkers.work_goes_on_within(timedelta(seconds=8), run, [key], died_at - 9)) == 1


def test_control_a_run_that_did_nothing_is_noticed(hand: Hand) -> None:
    assert {"I1", "I2 one", "enough"} <= set(verdicts(hand.record()))
