"""What is kept of a step until its events are sent."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from orchestrator.core.model import Claim, NodeKey
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


def test_steps_that_never_end_here_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_events, "MAX_WAITING", 3)
    events = step_events.StepEvents(None, "w", is_enabled=True)  # type: ignore[arg-type]
    monkeypatch.setattr(events, "_add", lambda _note: None)
    for number in range(10):
        claim = Claim(
            instance_id=UUID(int=1),
            step_id=UUID(int=number),
            key=NodeKey("a", ()),
            token=UUID(int=2),
            attempt=0,
            handler="h",
            queue="q",
            claimed_at=datetime(2026, 1, 1, tzinfo=UTC),
            expires_at=None,
        )
        events.started(claim)
    assert len(events._started) <= 3
