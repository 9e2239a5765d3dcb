"""What is kept of a step until its events are sent."""

from datetime import timedelta

import pytest

from orchestrator.core.outcomes import Completed, Failed, Outcome, Suspended
from workers import step_events


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (Completed(output={"n": 1}), "task-succeeded", "{'n': 1}"),
        (Completed(output="x" * 10_000), "task-succeeded", "'" + "x" * (step_events.MAX_RESULT_CHARACTERS - 1)),
        (Suspended(duration=timedelta(seconds=5), output=None), "task-succeeded", "asleep for 0:00:05"),
        (Failed(message="no" * 10_000, retryable=True), "task-failed", "no" * 100),
    ],
)
def test_a_few_words_of_an_outcome_are_kept_however_large_it_is(outcome: Outcome, kind: str, text: str) -> None:
    assert step_events._told(outcome) == (kind, text)
