"""Deadlines of steps: wall clock over all attempts and waits (sequences contract §5.8)."""

from datetime import timedelta
from typing import Any

from orchestrator.core import asides
from orchestrator.core.asides import Answer
from orchestrator.core.interceptors import resolve
from orchestrator.core.model import Step, StepError
from orchestrator.core.states import NodeState, StepState
from orchestrator.core.steps import ERROR_REF, block_of, end_node, passed_by
from orchestrator.core.turn import Turn
from sequences import document
from sequences.durations import to_milliseconds

ROW_ERROR = "sla_deadline_breached"
_IN_HANDS = frozenset({StepState.READY, StepState.CLAIMED, StepState.ASLEEP})


def is_over(turn: Turn, step: Step) -> bool:
    """Tell whether a step's deadline has passed."""
    return step.deadline_at is not None and step.deadline_at <= turn.now


def breach(turn: Turn, step: Step) -> None:
    """Fail a step whose deadline has passed, wherever it stands; what its worker still reports is dropped."""
    block = block_of(turn, step.key)
    deadline = to_milliseconds(block.deadline or timedelta(0))
    elapsed = to_milliseconds(turn.now - (step.started_at or step.entered_at))
    message = f"step {block.id!r} missed its deadline of {deadline} ms: {elapsed} ms have passed"
    if step.state in _IN_HANDS:
        turn.record_attempt(step, "timed_out", {"kind": "timeout", "message": message})
    _escalate(turn, step, block, {"_breach_elapsed_ms": elapsed, "_breach_deadline_ms": deadline})
    turn.remove_step(step)
    row = {"_error": ROW_ERROR, "_deadline_ms": deadline, "_elapsed_ms": elapsed}
    turn.add_output(step.key, row, attempt=step.attempt, ref=ERROR_REF)
    error = StepError(step_id=block.id, message=message, details={"code": ROW_ERROR, **row})
    passed = passed_by(turn, step)
    end_node(turn, step.key, NodeState.FAILED, started_at=step.entered_at, error=error, passed=passed)


def _escalate(turn: Turn, step: Step, block: document.Step, times: dict[str, Any]) -> None:
    """Have the handler of `on_deadline_breach` called; one whose params cannot be made is called without them."""
    call = block.on_deadline_breach
    if call is None:
        return
    compiled = turn.plan.beside(f"breach:{block.id}", call.handler, call.params)
    params = resolve(turn, step.key, compiled, {})
    given = params if isinstance(params, dict) and not isinstance(params, Answer) else {}
    marks = {"_breach_block_id": block.id, "_breach_instance_id": str(turn.instance.id), **times}
    asides.call(turn, block.id, call.handler, {**given, **marks})
