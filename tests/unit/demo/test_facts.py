"""What the stored rows say, and that each promise is broken by the rows that break it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from workers.demo.facts import Attempt, Facts, Output, Place, judge

FIRST, SECOND, OTHER = UUID(int=1), UUID(int=2), UUID(int=9)
START = datetime(2026, 1, 1, tzinfo=UTC)
PATHS = ["a.py", "b.py", "bad.py"]
REPORT = {"html": "r.html", "json": "r.json", "indexed": 2, "quarantined": 1}


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def attempt(
    block_id: str, *index: int, begin: float, end: float, outcome: str = "completed", worker: UUID = OTHER, **more: Any
) -> Attempt:
    return Attempt(
        place=(block_id, index),
        queue="gpu" if block_id == "index" else "default",
        outcome=outcome,
        worker_id=worker,
        claimed_at=at(begin),
        ended_at=at(end),
        error=more.get("error"),
    )


def output(place: Place, value: Any = None) -> Output:
    return Output(place=place, value={} if value is None else value)


ATTEMPTS = (
    attempt("find", begin=0, end=1),
    *(attempt("fingerprint", index, begin=1 + index, end=2 + index) for index in range(3)),
    attempt("index", 0, begin=2, end=3, worker=FIRST),
    attempt("index", 1, begin=3, end=12, worker=FIRST, outcome="lost"),
    attempt("index", 2, begin=7, end=8, worker=SECOND, outcome="failed", error="no"),
    attempt("quarantine", 2, begin=8, end=9),
    attempt("index", 1, begin=12, end=13, worker=SECOND),
    attempt("approval", begin=14, end=15),
    attempt("publish", begin=15, end=16),
)
OUTPUTS = (
    output(("find", ()), {"paths": PATHS}),
    *(output(("fingerprint", (index,))) for index in range(3)),
    output(("index", (0,)), {"path": "a.py"}),
    output(("index", (1,)), {"path": "b.py"}),
    output(("quarantine", (2,)), {"path": "bad.py", "reason": "no"}),
    output(("approval", ())),
    output(("publish", ()), REPORT),
)
GOOD = Facts(state="completed", outputs=OUTPUTS, attempts=ATTEMPTS)


def broken(facts: Facts) -> list[str]:
    return [promise.text for promise in judge(facts) if not promise.is_kept]


def without(facts: Facts, block_id: str) -> Facts:
    return replace(facts, outputs=tuple(row for row in facts.outputs if row.place[0] != block_id))


def with_attempts(*more: Attempt) -> Facts:
    return replace(GOOD, attempts=ATTEMPTS + more)


def test_all_promises_are_kept() -> None:
    assert broken(GOOD) == []


def test_what_the_rows_say() -> None:
    assert (GOOD.indexed, GOOD.quarantined, GOOD.report) == (("a.py", "b.py"), ("bad.py",), REPORT)
    assert [GOOD.name(lost.place) for lost in GOOD.lost] == ["index of b.py"]
    assert len(GOOD.attempts) - len(GOOD.outputs) == 2
    assert GOOD.shifts == (FIRST, SECOND)
    assert GOOD.seconds_lost == 5.0, "from the last commit of the killed worker to the first of its successor"
    assert (GOOD.seconds, GOOD.steps_per_second) == (12.0, 0.5)


def test_a_lost_claim_is_no_commit_of_the_killed_worker() -> None:
    assert GOOD.last_commit_before == at(3)


EVERY_MODULE = "every module found is either indexed or quarantined, once"
OUTPUT_ONCE = "each output was committed once, by one execution that completed"
ACCOUNTED = "executions = outputs + modules quarantined + executions lost to the kill"
IN_FLIGHT = "nothing was executed twice but steps in flight in the killed worker"
OWN_ERROR = "each quarantined module has its own error"
WENT_ON = "work went on after the kill"
COVERS = "the report covers every record"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (replace(GOOD, state="failed"), {"the instance completed"}),
        (without(GOOD, "quarantine"), {EVERY_MODULE, OUTPUT_ONCE, ACCOUNTED, COVERS}),
        (replace(GOOD, outputs=(*OUTPUTS, OUTPUTS[4])), {EVERY_MODULE, OUTPUT_ONCE, ACCOUNTED, COVERS}),
        (with_attempts(attempt("index", 0, begin=9, end=10, worker=SECOND)), {OUTPUT_ONCE, ACCOUNTED, IN_FLIGHT}),
        (with_attempts(attempt("index", 0, begin=2, end=9, worker=SECOND, outcome="lost")), {IN_FLIGHT}),
        (with_attempts(attempt("fingerprint", 0, begin=1, end=2, outcome="failed")), {ACCOUNTED, IN_FLIGHT}),
        (
            replace(GOOD, attempts=tuple(a for a in ATTEMPTS if a.worker_id != SECOND)),
            {OUTPUT_ONCE, ACCOUNTED, OWN_ERROR, WENT_ON},
        ),
        (without(GOOD, "publish"), {OUTPUT_ONCE, ACCOUNTED, COVERS}),
        (replace(GOOD, outputs=(), attempts=()), {EVERY_MODULE, OUTPUT_ONCE, WENT_ON, COVERS}),
    ],
    ids=[
        "failed",
        "a module without an end",
        "an output twice",
        "an execution too many",
        "lost by a worker that was not killed",
        "a retry",
        "nobody took over",
        "no report",
        "nothing",
    ],
)
def test_rows_that_break_promises(facts: Facts, expected: set[str]) -> None:
    assert set(broken(facts)) == expected


@pytest.mark.parametrize("wrong", [{"reason": "another"}, {"path": "b.py"}], ids=str)
def test_an_error_of_another_round_is_noticed(wrong: dict[str, Any]) -> None:
    mixed = tuple(
        replace(row, value={**row.value, **wrong}) if row.place[0] == "quarantine" else row for row in OUTPUTS
    )
    assert OWN_ERROR in broken(replace(GOOD, outputs=mixed))


def test_what_was_found_names_the_step() -> None:
    extra = with_attempts(attempt("index", 0, begin=9, end=10, worker=SECOND))
    found = {promise.text: promise.found for promise in judge(extra)}
    assert found[IN_FLIGHT] == "index of a.py"
