"""The attempts of a step: its gates in order, its outcomes, its retries (sequences contract §5).

Gates are passed in the order of §5.1; one that is closed leaves the step on a row with the moment or the event that
will open it, and nothing else. A step that is re-entered continues behind the gate it stood at.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

from orchestrator.core import budgets, caching, calendars, context, deadlines, gates, injection, interceptors, windows
from orchestrator.core.asides import Answer, from_json
from orchestrator.core.conditions import guard_holds
from orchestrator.core.holding import hold
from orchestrator.core.interceptors import Called
from orchestrator.core.model import NodeKey, Step
from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome, Suspended
from orchestrator.core.retries import backoff, may_retry
from orchestrator.core.routing import routed
from orchestrator.core.states import Activity, NodeState, StepState
from orchestrator.core.steps import (
    DEFAULT_QUEUE,
    Passed,
    block_of,
    complete_step,
    end_node,
    fail_step,
    fail_unstarted,
    make_ready,
    offer,
    passed_before,
    ready_activity,
    runs_in_process,
)
from orchestrator.core.turn import Reuse, Turn
from orchestrator.core.values import replace
from sequences import document
from sequences.durations import after
from sequences.expressions import ExpressionError
from sequences.handlers import is_builtin
from sequences.schemas import compile_schema

_NOT_STARTED: Final[Mapping[str, Any]] = {"started_at": None, "ready_at": None, "deadline_at": None}
"""Of a step that something holds up before it has started. One that nothing holds up is ready when it is reached."""


def enter_step(turn: Turn, key: NodeKey) -> None:
    """Reach a step for the first time: test its guard, then start at its first gate."""
    block = block_of(turn, key)
    try:
        if block.when is not None and not guard_holds(turn, key, block.when):
            end_node(turn, key, NodeState.SKIPPED)
            return
    except ExpressionError as error:
        fail_unstarted(turn, key, f"when guard of step {key.block_id!r} is invalid: {error}")
        return
    former = turn.withdrawn.get(key)
    if former is not None and former.state is StepState.GATE and gates.comes_first(block):
        turn.put_step(replace(former, former=None))
        return
    reached_at = former.entered_at if former is not None else turn.now
    queue = _queue_of(turn, block)
    step = Step(
        key=key,
        id=turn.new_id(),
        state=StepState.READY,
        activity=ready_activity(block.handler),
        handler=block.handler,
        queue=queue or DEFAULT_QUEUE,
        is_queue_named=queue is not None,
        tenant_id=turn.instance.tenant_id,
        priority=turn.instance.priority,
        timeout=block.timeout,
        entered_at=reached_at,
        started_at=turn.now,
        ready_at=turn.queued_at,
        deadline_at=_deadline_at(turn, block),
    )
    passed = passed_before(turn, key)
    if passed is Passed.HANDLER:
        if gates.comes_last(block):
            gates.open_gate(turn, _started(turn, step))
        else:  # the definition was replaced by one without that gate
            end_node(turn, key, NodeState.COMPLETED)
        return
    if block.delay is not None and passed is None:
        due_at = _delay_due(turn, block.delay, reached_at)
        if due_at > turn.now:
            turn.put_step(
                replace(step, state=StepState.DELAYED, activity=Activity.SCHEDULED, wake_at=due_at, **_NOT_STARTED)
            )
            return
    _pass_window(turn, step)


def _queue_of(turn: Turn, block: document.Step) -> str | None:
    """Give the queue of a new step; None if it has none. Rules are for tasks, not for what the engine runs itself."""
    if not turn.facts.routes or runs_in_process(block.handler):
        return block.queue_name
    return routed(turn.facts.routes, turn.instance.tenant_id, block.handler, block.queue_name)


def _delay_due(turn: Turn, delay: document.Delay, reached_at: datetime) -> datetime:
    holidays: Any = []
    if delay.business_days_only or delay.count == "business":
        config = turn.context.config
        holidays = config.get("holidays") or [] if isinstance(config, dict) else []
    return calendars.delay_due(
        delay,
        start=reached_at,
        timezone=turn.instance.timezone,
        holidays=[day for day in holidays if isinstance(day, str)] if isinstance(holidays, list) else [],
        random=turn.facts.random,
    )


def _pass_window(turn: Turn, step: Step) -> None:
    """Go on within the send window, or wait for it to open; a step that was ready before has passed all other gates."""
    is_new = step.state is StepState.READY  # nothing has held it up
    is_again = step.attempt > 0 or (step.ready_at is not None and not is_new)
    opens_at = windows.opening(turn, step)
    if opens_at is not None:
        windows.wait(turn, step if is_again else replace(step, **_NOT_STARTED), opens_at)
        return
    if not is_again:
        step = _started(turn, step)
    comes_first = gates.comes_first(block_of(turn, step.key))
    if not is_again and comes_first and passed_before(turn, step.key) is not Passed.GATE:
        gates.open_gate(turn, step)
    elif is_new:
        offer(turn, step)
    else:
        make_ready(turn, step)


def _started(turn: Turn, step: Step) -> Step:
    """Stamp a step that has passed what holds up its start; its deadline counts from here."""
    turn.amend(current_step=step.key.block_id, current_step_started_at=turn.now)
    if step.started_at is not None:
        return step
    return replace(step, started_at=turn.now, deadline_at=_deadline_at(turn, block_of(turn, step.key)))


def _deadline_at(turn: Turn, block: document.Step) -> datetime | None:
    return after(turn.now, block.deadline) if block.deadline is not None else None


def wake(turn: Turn, step: Step) -> None:
    """Go on with a step whose moment has come."""
    if deadlines.is_over(turn, step) and step.state is not StepState.HELD:
        deadlines.breach(turn, step)
        return
    match step.state:
        case StepState.DELAYED:
            _pass_window(turn, step)
        case StepState.WINDOW:
            _pass_window(turn, step)
        case StepState.BACKOFF:
            _pass_window(turn, step)
        case StepState.GATE:
            gates.time_out(turn, step)
        case StepState.INTERCEPTED:
            release(turn, step, None)
        case StepState.ASLEEP if step.expires_at is not None and step.expires_at <= turn.now:
            turn.record_attempt(step, "timed_out")
            _attempt_failed(turn, step, timed_out(turn, step.key))
        case StepState.ASLEEP:
            finish(turn, step, Completed(output=step.output))
        case StepState.READY | StepState.CLAIMED:
            turn.record_attempt(step, "timed_out")
            _attempt_failed(turn, step, timed_out(turn, step.key))
        case StepState.HELD:
            pass
        case _:
            assert_never(step.state)


def timed_out(turn: Turn, key: NodeKey) -> Failed:
    """Describe the end of an attempt's time-out."""
    timeout = block_of(turn, key).timeout or timedelta(0)
    return Failed(message=f"step timed out after {_milliseconds(timeout)} ms", retryable=True, kind=FailureKind.TIMEOUT)


def finish(turn: Turn, step: Step, outcome: Outcome) -> None:
    """Settle an attempt: store its output, try again later, or fail the step."""
    match outcome:
        case Completed():
            _complete(turn, step, outcome)
        case Failed() if deadlines.is_over(turn, step):
            deadlines.breach(turn, step)
        case Failed():
            turn.record_attempt(step, "failed", error_of(outcome))
            _attempt_failed(turn, step, outcome)
        case Suspended():
            _suspend(turn, step, outcome)
        case _:
            assert_never(outcome)


def reuse(turn: Turn, task: Reuse) -> None:
    """Complete a step without its handler, unless it has been withdrawn meanwhile."""
    step = turn.step(task.key)
    if step is None:
        return
    step = interceptors.announced(turn, step)
    if task.is_stub:
        turn.record_attempt(step, "dry_run")
        _store(turn, replace(step, cache_key=None), Completed(output=task.output), None)
        return
    is_external = not is_builtin(step.handler)
    _complete(turn, step, caching.reused(turn, step, task.output, is_external=is_external), is_reused=True)


def _complete(turn: Turn, step: Step, outcome: Completed, *, is_reused: bool = False) -> None:
    outcome = context.without_session(turn, outcome, is_builtin=is_builtin(step.handler))
    refusal = _refusal(turn, step, outcome)
    if refusal is not None:
        turn.record_attempt(step, "failed", error_of(refusal))
        fail_step(turn, step, refusal)
        return
    if is_reused:
        turn.record_attempt(step, "cached")
        _store(turn, replace(step, cache_key=None), outcome, None)
        return
    turn.record_attempt(step, "completed")
    budgets.record_usage(turn, step, outcome.output)
    if interceptors.hold_back(turn, step, outcome.output, merges=outcome.merges):
        context.write_effects(turn, step.key, outcome.effects)
    else:
        _store(turn, step, outcome, None)


def release(turn: Turn, step: Step, called: Called | None) -> None:
    """Store the output that was held back for after_step, or what it gave in its stead.

    Args:
        called: How the call ended; None if it has not, and is waited for no longer.
    """
    memory = step.memory or {}
    outcome = Completed(output=step.output, merges=memory["merges"])
    called = called or Called(key=from_json(memory["call"]), answer=Answer())
    result = called.answer.result
    if isinstance(result, dict) and "output" in result:
        other = replace(outcome, output=result["output"])
        refusal = _refusal(turn, step, other)
        if refusal is None:
            outcome = other
        else:
            called = replace(called, answer=Answer(error=refusal.message))
    rest = {name: value for name, value in memory.items() if name not in {"call", "merges"}}
    _store(turn, replace(step, wake_at=None, output=None, memory=rest or None), outcome, called)


def _store(turn: Turn, step: Step, outcome: Completed, called: Called | None) -> None:
    caching.keep(turn, step, outcome, is_external=not is_builtin(step.handler))
    turn.add_output(step.key, outcome.output, attempt=step.attempt)
    context.write_output(turn, step.key, outcome)
    turn.amend(total_steps=turn.instance.total_steps + 1)
    interceptors.stored(turn, step, outcome.output, called)
    if gates.comes_last(block_of(turn, step.key)):
        gates.open_gate(turn, step)
        return
    complete_step(turn, step)


def _refusal(turn: Turn, step: Step, outcome: Completed) -> Failed | None:
    schema = block_of(turn, step.key).output_schema
    if schema is not None and (violations := compile_schema(schema).violations(outcome.output)):
        message = "output failed output_schema validation: " + "; ".join(violations[:10])
        return Failed(message=message, retryable=False, kind=FailureKind.OUTPUT)
    if not outcome.effects and not outcome.merges:
        return None
    return context.refusal(turn, step.key, outcome) or injection.refusal(turn, outcome)


def _suspend(turn: Turn, step: Step, outcome: Suspended) -> None:
    if turn.instance.is_held and block_of(turn, step.key).cancellable:
        hold(turn, step)
        return
    wake_at = after(turn.now, outcome.duration)
    timeout = block_of(turn, step.key).timeout
    expires_at = after(step.claimed_at or turn.now, timeout) if timeout is not None else None
    if expires_at is not None and expires_at < wake_at:
        wake_at = expires_at
    else:
        expires_at = None
    turn.put_step(replace(step, state=StepState.ASLEEP, wake_at=wake_at, expires_at=expires_at, output=outcome.output))


def _attempt_failed(turn: Turn, step: Step, failure: Failed) -> None:
    block = block_of(turn, step.key)
    if not may_retry(turn, step, failure, block.retry):
        fail_step(turn, step, failure)
        return
    again = replace(
        step,
        id=turn.new_id(),
        attempt=step.attempt + 1,
        token=None,
        worker_id=None,
        worker_name=None,
        slot=None,
        claimed_at=None,
        claim_epoch=0,
        expires_at=None,
    )
    assert block.retry is not None  # noqa: S101 - may_retry says no without a policy
    pause = backoff(block.retry, step.attempt, turn.facts.random)
    turn.put_step(replace(again, state=StepState.BACKOFF, activity=Activity.SCHEDULED, wake_at=after(turn.now, pause)))


def error_of(failure: Failed) -> dict[str, Any]:
    """Give the form in which the history keeps a failure."""
    return {
        "kind": failure.kind.value,
        "message": failure.message,
        "retryable": failure.retryable,
        "details": failure.details,
    }


def _milliseconds(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
