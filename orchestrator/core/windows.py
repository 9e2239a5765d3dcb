"""Send windows: a step is handed to workers within them only (sequences contract §5.1, §13.1).

The window is passed before a human is asked, and is looked at again whenever something else has held the step up since:
the answer, a pause, a back-off. Nothing is sent at night because a person has answered, or resumed a flow, at night.
"""

from datetime import datetime

from orchestrator.core import calendars
from orchestrator.core.model import Step
from orchestrator.core.states import Activity, StepState
from orchestrator.core.steps import block_of, make_ready
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace


def opening(turn: Turn, step: Step) -> datetime | None:
    """Give the moment the step may be handed out at; None if that is now, or it has no window."""
    window = block_of(turn, step.key).send_window
    if window is None:
        return None
    return calendars.next_opening(window, now=turn.now, timezone=turn.instance.timezone)


def wait(turn: Turn, step: Step, opens_at: datetime) -> None:
    """Let a step wait for the next opening of its window."""
    turn.put_step(replace(step, state=StepState.WINDOW, activity=Activity.SCHEDULED, wake_at=opens_at))


def make_ready_within(turn: Turn, step: Step) -> None:
    """Let a worker have a step that something has held up, or wait for the next opening of its window."""
    opens_at = opening(turn, step)
    if opens_at is None:
        make_ready(turn, step)
    else:
        wait(turn, replace(step, ready_at=step.ready_at or turn.now), opens_at)
