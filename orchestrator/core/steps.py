"""An open step: how it becomes claimable and how it ends.

The gates before and behind the handler are in `gates.py` and `attempts.py`; they all end here.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from orchestrator.core import budgets, caching
from orchestrator.core.inputs import InputError, has_templates, prepare
from orchestrator.core.model import Node, NodeKey, Step, StepError
from orchestrator.core.outcomes import Failed, FailureKind
from orchestrator.core.slice import ABSENT
from orchestrator.core.states import Activity, NodeState, StepState
from orchestrator.core.turn import Ended, Reuse, Turn
from orchestrator.core.values import replace
from sequences import document
from sequences.durations import after
from sequences.handlers import is_builtin, is_endpoint, is_unsupported

PASSED = "passed"
"""Where the memory of a step's node keeps its `Passed`."""


class Passed(StrEnum):
    """How far a step came on its way, whatever became of it."""

    DELAY = "delay"
    GATE = "gate"
    HANDLER = "handler"


ERROR_REF = "__error__"
DEFAULT_QUEUE = "default"


def runs_in_process(handler: str) -> bool:
    """Tell whether the engine's own workers run a handler, rather than an external worker that polls or is hinted."""
    return is_builtin(handler) or is_endpoint(handler) or is_unsupported(handler)


def block_of(turn: Turn, key: NodeKey) -> document.Step:
    """Give the definition of a step."""
    block = turn.plan_of(key).places[key.block_id].block
    if not isinstance(block, document.Step):
        raise TypeError(f"block {key.block_id!r} is not a step")
    return block


def ready_activity(handler: str) -> Activity:
    """Say what a step that is ready waits for: our own workers count as running, all others are outsiders."""
    return Activity.RUNNING if runs_in_process(handler) else Activity.WAITING


def make_ready(turn: Turn, step: Step, *, ready_at: datetime | None = None, expires_at: datetime | None = None) -> None:
    """Let a worker have a step that waited or was claimed; while the instance is held, keep it until the pause ends.

    Args:
        ready_at: The step's place in its queue; None puts it behind all that were due before.
        expires_at: End of the time-out of a task whose attempt goes on with another worker; None for a new attempt.
    """
    step = replace(
        step,
        state=StepState.READY,
        activity=ready_activity(step.handler),
        wake_at=None,
        expires_at=None,
        ready_at=ready_at or turn.queued_at,
        hinted_at=None,
        token=None,
        output=None,
        cache_key=None,
    )
    offer(turn, step, expires_at)


def offer(turn: Turn, step: Step, expires_at: datetime | None = None) -> None:
    """Put a step that is ready where workers find it, keep it back, fail it, or complete it from the cache."""
    budgets.check(turn)
    if turn.instance.is_held:
        turn.put_step(replace(step, state=StepState.HELD, activity=Activity.SCHEDULED))
        return
    if (reason := cannot_run(step.handler)) is not None and not is_left_out(turn, step.handler):
        fail_step(turn, step, Failed(message=reason, retryable=False))
        return
    try:
        _offer(turn, step, expires_at)
    except InputError as error:
        fail_step(turn, step, Failed(message=str(error), retryable=False, kind=FailureKind.INPUT))


def _offer(turn: Turn, step: Step, expires_at: datetime | None) -> None:
    """Put a step where workers find it, or complete it from the cache; InputError when its inputs cannot be made."""
    cache_key = _cache_key(turn, step)
    if cache_key is not None:
        step = replace(step, cache_key=cache_key)
        if (output := caching.found(turn, cache_key)) is not ABSENT:
            turn.put_step(replace(step, activity=Activity.RUNNING))
            prepare(turn, step.key)  # §5.1: the params come first, and a template in them may be wrong
            turn.todo.append(Reuse(step.key, output))
            return
    if is_left_out(turn, step.handler):
        turn.put_step(replace(step, activity=Activity.RUNNING))
        stub = {"dry_run": True, "handler": step.handler, "would": {"params": prepare(turn, step.key).params}}
        turn.todo.append(Reuse(step.key, stub, is_stub=True))
        return
    if step.activity is Activity.RUNNING:
        turn.put_step(step)
        return
    if expires_at is None and step.timeout is not None:
        expires_at = after(turn.now, step.timeout)
    turn.put_step(replace(step, wake_at=expires_at, expires_at=expires_at))
    if has_templates(turn, step.key):
        prepare(turn, step.key)


def _cache_key(turn: Turn, step: Step) -> str | None:
    try:
        return caching.key_of(turn, block_of(turn, step.key), step.key)
    except InputError:
        prepare(turn, step.key)  # §5.1: the params come first, so of two wrong templates theirs is told of
        raise


def is_left_out(turn: Turn, handler: str) -> bool:
    """Tell whether a dry run does without a handler: all but the built-in ones, which know of dry runs themselves."""
    return turn.instance.dry_run and not is_builtin(handler)


def cannot_run(handler: str) -> str | None:
    """Say why no worker can run a handler; None if one may."""
    if is_unsupported(handler):
        return f"handler {handler!r} is outside this product"
    if is_endpoint(handler):
        return f"endpoint handlers cannot run in this version: {handler!r}"
    return None


def complete_step(turn: Turn, step: Step) -> None:
    """Close a step whose output is stored."""
    turn.remove_step(step)
    end_node(turn, step.key, NodeState.COMPLETED, started_at=step.entered_at)


def fail_step(turn: Turn, step: Step, failure: Failed) -> None:
    """Close a step that has failed for good."""
    turn.remove_step(step)
    _leave_error_row(turn, step.key, failure, attempt=step.attempt)
    error = StepError(step_id=step.key.block_id, message=failure.message, details=failure.details)
    end_node(turn, step.key, NodeState.FAILED, started_at=step.entered_at, error=error, passed=passed_by(turn, step))


def fail_unstarted(turn: Turn, key: NodeKey, message: str) -> None:
    """Fail a step that was reached but never became open."""
    _leave_error_row(turn, key, Failed(message=message, retryable=False))
    end_node(turn, key, NodeState.FAILED, error=StepError(step_id=key.block_id, message=message))


def _leave_error_row(turn: Turn, key: NodeKey, failure: Failed, *, attempt: int = 0) -> None:
    """Leave the row of a failed in-process step of the root list, so that its flow's outputs are not empty (§5.4)."""
    is_root = turn.plan_of(key).places[key.block_id].parent is None
    if is_root and runs_in_process(block_of(turn, key).handler):
        row = {"__error__": True, "retryable": False, "message": failure.message}
        turn.add_output(key, row, attempt=attempt, ref=ERROR_REF)


def cancel_step(turn: Turn, step: Step) -> None:
    """Close a step that is no longer wanted; what its worker still reports is dropped."""
    if step.state is StepState.CLAIMED:
        turn.record_attempt(step, "cancelled")
    turn.remove_step(step)
    end_node(turn, step.key, NodeState.CANCELLED, started_at=step.entered_at, passed=passed_by(turn, step))


def passed_by(turn: Turn, step: Step) -> Passed | None:
    """Say what a step has behind it that is not asked for again when it is entered anew."""
    match step.state:
        case StepState.DELAYED:
            return None
        case StepState.WINDOW if step.ready_at is None:
            return Passed.DELAY
        case StepState.GATE:
            return Passed.DELAY if block_of(turn, step.key).wait_for_input is not None else Passed.HANDLER
        case StepState.HELD if step.ready_at is None:
            return Passed.DELAY
        case _:
            return Passed.GATE


def passed_before(turn: Turn, key: NodeKey) -> Passed | None:
    """Say what a step that a retry has reopened had behind it when it ended; None for one that is new."""
    node = turn.node(key) if turn.instance.round > 0 else None
    passed = node.memory.get(PASSED) if node is not None else None
    return None if passed is None else Passed(passed)


def end_node(
    turn: Turn,
    key: NodeKey,
    state: NodeState,
    *,
    started_at: datetime | None = None,
    error: StepError | None = None,
    passed: Passed | None = None,
) -> None:
    """Write the end of a node and have its parent told.

    Args:
        started_at: When the block was reached; None for one that never started. A retry keeps the first such moment.
        passed: What a step that did not end well has behind it.
    """
    memory: dict[str, Any] = {"error": error.to_json()} if error is not None else {}
    if passed is not None:
        memory[PASSED] = passed
    former = turn.node(key) if turn.instance.round > 0 else None
    if former is not None and former.started_at is not None:
        started_at = former.started_at
    turn.put_node(Node(key=key, state=state, started_at=started_at, completed_at=turn.now, memory=memory))
    if not turn.is_leaving(key):
        turn.todo.append(Ended(key, state, error))
        return
    # Where the new definition has the step, walking again comes past its end. Where it has not, a failure is nobody's.
    turn.walks_again = True
    if state is NodeState.FAILED and key.block_id not in turn.plan.places:
        turn.end(state, error)
