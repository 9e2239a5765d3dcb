"""Send windows: a step is handed to workers within them only (sequences contract §5.1, §13.1).

The window is passed before a human is asked, and is looked at again whenever something else has held the step up since:
the answer, a pause, a back-off. Nothing is sent at night because a person has answered, or resumed a flow, at night.
"""

from orchestrator.core import calendars
from orchestrator.core.model import Step
from orchestrator.core.states import Activity, StepState
from orchestrator.core.steps import block_of, make_ready
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace


def is_open(turn: Turn, step: Step) -> bool:
    """Tell whether the step may be handed out now; yes if it has no window."""
    window = block_of(turn, step.key).send_window
    return window is None or calendars.next_opening(window, now=turn.now, timezone=turn.instance.timezone) is None


def wait(turn: Turn, step: Step) -> None:
    """Let a step wait for the next opening of its window."""
    window = block_of(turn, step.key).send_window
    opening = None
    if window is not None:
        opening = calendars.next_opening(window, now=turn.now, timezone=turn.instance.timezone)
    turn.put_step(replace(step, state=StepState.WINDOW, activity=Activity.SCHEDULED, wake_at=opening or turn.now))


def make_ready_within(turn: Turn, step: Step) -> None:
    """Let a worker have a step that something has held up, or wait for the next opening of its window."""
    if is_open(turn, step):
        make_ready(turn, step)
    else:
        wait(turn, replace(step, ready_at=step.ready_at or turn.now))
