"""A crash at any point changes nothing that lasts, and the harness would notice if it did."""

from typing import Any

import pytest

from orchestrator.core import decider
from orchestrator.engine import Engine
from orchestrator.store.memory import MemoryTransaction, writing
from orchestrator.store.memory.tables import Broken, Journal
from orchestrator.testing import (
    Harness,
    Point,
    RetryableError,
    answer,
    at,
    crash_at,
    script,
    waiting,
)
from tests.model.test_core_lifecycle import SHAPES
from tests.support.drive import RETRY, parallel, say, step

BLOCKS = [
    step("a", "task", retry=RETRY),
    parallel("p", [step("b", "set_state", {"key": "k", "value": 1})], [step("c", delay={"duration": "1h"})]),
    say("z", "{{ outputs.a.n }}"),
]
PARTS = {"task": script(RetryableError("busy"), {"n": 1})}


@pytest.fixture
def harness() -> Harness:
    return Harness(PARTS)


@pytest.mark.parametrize("point", Point)
def test_a_crash_at_each_point_happens_and_is_survived(harness: Harness, point: Point) -> None:
    blocks = [step("a"), step("b", delay={"duration": "1h"})]
    run = harness.run(blocks, crash=crash_at(point))
    run.expect("completed")
    assert run.crashes == [str(point)]
    ran = [execution.block_id for execution in run.executions]
    assert ran == (["a", "a", "b"] if point in {Point.AFTER_HANDLER, Point.BEFORE_COMMIT} else ["a", "b"])


def test_a_crash_belongs_to_a_step_and_a_time(harness: Harness) -> None:
    run = harness.run(BLOCKS, crash=crash_at("after_handler", "a", 2))
    run.expect("completed")
    assert [(e.attempt, e.result) for e in run.executions if e.block_id == "a"] == [
        (0, "failed"),
        (1, "lost"),
        (1, "completed"),
    ]
    with pytest.raises(ValueError, match=r"no crash point 'lunch'; there are: before_claim"):
        crash_at("lunch")


def test_b1_the_result_of_a_worker_that_was_thought_dead_is_refused(harness: Harness) -> None:
    run = harness.run(BLOCKS, crash=crash_at("after_handler", "a", 2, reports_late=True))
    run.expect("completed", outputs={"a": {"n": 1}})
    assert len([row for row in run.rows if row.block_id == "a"]) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_b1_every_crash_of_every_shape_is_survived(shape: str) -> None:
    harness = Harness({"external": {"v": 1}})
    signals = [at(waiting("g"), answer("g")) for _ in range(3)]
    # Who wins a race between steps that end at the same moment is open; that it ends, and how, is not.
    compare = (lambda run: (str(run.state), run.outputs.get("z"))) if shape.startswith("race") else None
    survived = harness.every_crash(SHAPES[shape], {"items": [1, 2]}, signals=signals, compare=compare)
    assert survived.schedules > 20


def test_every_crash_tries_each_passing_with_and_without_carrying_on(harness: Harness) -> None:
    plain = harness.run([step("a")])
    assert [passing.point for passing in plain.passed] == [
        Point.BEFORE_CLAIM,
        Point.AFTER_CLAIM,
        Point.BEFORE_HANDLER,
        Point.AFTER_HANDLER,
        Point.BEFORE_COMMIT,
        Point.AFTER_COMMIT,
    ]
    late = 1
    assert harness.every_crash([step("a")]).schedules == 2 * (6 + late)
    assert harness.every_crash([step("a")], points=["after_commit"]).schedules == 2


def test_every_crash_has_its_own_handlers_for_each_run(harness: Harness) -> None:
    def parts() -> dict[str, Any]:
        calls: list[int] = []

        def task() -> dict[str, Any]:
            calls.append(1)
            return {"first": len(calls) > 0}

        return {"task": task}

    harness.every_crash([step("a", "task")], handlers=parts)


def test_every_crash_tells_what_a_crash_has_changed(harness: Harness) -> None:
    calls: list[int] = []

    def remembers() -> dict[str, Any]:
        calls.append(1)
        return {"calls": len(calls)}

    with pytest.raises(AssertionError, match=r"a crash before_claim of `a` made a difference:\n  data: expected"):
        harness.every_crash([step("a", "task")], handlers={"task": remembers})
    harness.every_crash([step("a", "task")], handlers={"task": remembers}, compare=lambda run: run.state)


# -- engines that break a promise, and are noticed ---------------------------------------------------------------------


def crash_everywhere(harness: Harness) -> None:
    harness.every_crash(BLOCKS)


def test_control_the_engine_as_it_is_survives(harness: Harness) -> None:
    crash_everywhere(harness)


def test_control_a_rollback_that_keeps_half_is_noticed(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def roll_back_some(journal: Journal) -> None:
        undo = journal._undo
        del undo[: len(undo) // 2]
        original(journal)

    original = Journal.roll_back
    monkeypatch.setattr(Journal, "roll_back", roll_back_some)
    with pytest.raises((AssertionError, Broken)):
        crash_everywhere(harness)


def test_control_a_report_that_is_taken_without_its_claim_is_noticed(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whoever(turn: Any, claim: Any) -> Any:
        return turn.step(claim.key)

    monkeypatch.setattr(decider, "_claimed_step", whoever)
    with pytest.raises(AssertionError, match="late report"):
        crash_everywhere(harness)


def test_control_a_claim_that_is_never_given_back_is_noticed(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "lose", lambda *_arguments: 0)
    with pytest.raises(AssertionError, match=r"(?s)crash after_claim of `a` made a difference:.*state: expected"):
        crash_everywhere(harness)


def test_control_an_outcome_committed_in_two_parts_is_noticed(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MemoryTransaction.write

    def in_two_parts(tx: MemoryTransaction, decided: Any) -> None:
        for instance, changes in decided:
            first = [change for change in changes if type(change).__name__ == "StepGone"]
            whole(tx, [(instance, first)])
            if first:
                tx.journal.commit()
            whole(tx, [(instance, [change for change in changes if change not in first])])

    monkeypatch.setattr(MemoryTransaction, "write", in_two_parts)
    monkeypatch.setattr(writing, "write", in_two_parts)  # by which what is written at once is written, too
    with pytest.raises(AssertionError, match="crash before_commit"):
        crash_everywhere(harness)
