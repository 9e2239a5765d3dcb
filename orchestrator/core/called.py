"""What the end of a call beside the flow means (see `asides.py`). Only after_step and notices touch the flow."""

from typing import assert_never

from orchestrator.core import asides, attempts, context, gates, hooks, injection
from orchestrator.core.asides import LONGEST, RESULT_REF, SHELF_LIFE, Answer, Kind
from orchestrator.core.interceptors import Called
from orchestrator.core.model import ROOT_KEY, NodeKey, Step
from orchestrator.core.outcomes import Completed, Failed, Outcome, Suspended
from orchestrator.core.states import StepState
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace
from sequences.durations import after


def finish(turn: Turn, call: Step, outcome: Outcome) -> None:
    """Settle a call that its worker has reported."""
    match outcome:
        case Completed() if (refusal := _refusal(turn, outcome)) is not None:
            finish(turn, call, refusal)
        case Completed():
            turn.record_attempt(call, "completed")
            context.write_effects(turn, ROOT_KEY, outcome.effects)
            _end(turn, call, Answer(result=outcome.output))
        case Failed():
            turn.record_attempt(call, "failed", attempts.error_of(outcome))
            _end(turn, call, Answer(error=outcome.message))
        case Suspended(duration=duration) if duration > LONGEST:
            too_long = Failed(message=f"a call may take {LONGEST.total_seconds():g} seconds", retryable=False)
            finish(turn, call, too_long)
        case Suspended(duration=duration, output=output):
            wake_at = after(turn.now, duration)
            turn.put_step(replace(call, state=StepState.ASLEEP, wake_at=wake_at, output=output))
        case _:
            assert_never(outcome)


def _refusal(turn: Turn, outcome: Completed) -> Failed | None:
    """Say why what a call wants to write cannot be written; whatever it is named after, it stands at no block."""
    return context.refusal(turn, ROOT_KEY, replace(outcome, merges=False)) or injection.refusal(turn, outcome)


def wake(turn: Turn, call: Step) -> bool:
    """Go on with a call whose moment has come: it has slept, or nobody has taken it for too long."""
    if call.wake_at is None or call.wake_at > turn.now:
        return False
    if call.state is StepState.ASLEEP:
        finish(turn, call, Completed(output=call.output))
        return True
    turn.record_attempt(call, "timed_out")
    _end(turn, call, Answer(error=f"no worker has done this within {SHELF_LIFE.days * 24} hours"))
    return True


def lose(turn: Turn, call: Step, reason: str) -> None:
    """Give a call to another worker; after too many deaths it ends with an error."""
    turn.record_attempt(call, "lost", {"kind": "lost", "message": reason})
    losses = call.losses + 1
    if losses >= turn.facts.max_losses:
        _end(turn, call, Answer(error=f"lost its worker {losses} times: {reason}"))
        return
    turn.put_step(replace(_unclaimed(call), id=turn.new_id(), losses=losses))


def give_back(turn: Turn, call: Step) -> None:
    """Let another worker have a call that was claimed and not begun."""
    turn.put_step(_unclaimed(call))


def _unclaimed(call: Step) -> Step:
    return replace(
        call,
        state=StepState.READY,
        hinted_at=None,
        token=None,
        worker_id=None,
        worker_name=None,
        slot=None,
        claimed_at=None,
        expires_at=None,
    )


def _end(turn: Turn, call: Step, answer: Answer) -> None:
    turn.remove_step(call)
    memory = asides.about(call)
    match Kind(memory["kind"]):
        case Kind.PLAIN:
            pass
        case Kind.ROW:
            _complete_row(turn, call.key, answer)
        case Kind.AFTER:
            _end_after_step(turn, call, asides.from_json(memory["step"]), answer)
        case Kind.HOOK:
            if answer.error is None:
                turn.add_row_beside(call.key, answer.result)
            hooks.go_on(turn, call)
        case Kind.NOTICE:
            gates.notice_ended(turn, call, asides.from_json(memory["step"]), answer.error)
        case _ as unknown:
            assert_never(unknown)


def _complete_row(turn: Turn, key: NodeKey, answer: Answer) -> None:
    """Complete the row of an interceptor with what its handler has given."""
    if shown := answer.shown():
        turn.add_row_beside(key, shown, ref=RESULT_REF)


def _end_after_step(turn: Turn, call: Step, key: NodeKey, answer: Answer) -> None:
    """Let the step go on whose output was held back; it may have stopped to wait."""
    step = turn.step(key)
    if step is None or step.state is not StepState.INTERCEPTED or not _waits_for(step, call.key):
        _complete_row(turn, call.key, answer)
        return
    attempts.release(turn, step, Called(key=call.key, answer=answer))


def _waits_for(step: Step, call: NodeKey) -> bool:
    return asides.from_json(asides.about(step)["call"]) == call
