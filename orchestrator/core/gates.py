"""Human gates: a step that waits for a person (sequences contract §5.5, §16).

A gate with choices (`wait_for_input`) stands before the handler; an open gate (`wait_for_signal`) stands behind it and
takes any payload. An answer may come before its gate opens: it is kept on the signal's row.
"""

from dataclasses import dataclass
from typing import Any

from orchestrator.core import asides, budgets, windows
from orchestrator.core.asides import Kind
from orchestrator.core.context import TooLarge, write_checked
from orchestrator.core.inputs import REVIEW, InputError, prepare
from orchestrator.core.model import KeptSignal, NodeKey, Step
from orchestrator.core.outcomes import Failed, FailureKind
from orchestrator.core.sections import rfc3339
from orchestrator.core.states import Activity, StepState
from orchestrator.core.steps import block_of, complete_step, fail_step
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace
from sequences import document
from sequences.durations import after
from sequences.signals import HUMAN_INPUT_PREFIX, exact_choice, nameless_choice

GATE_MARK = "_orch8_human_gate"
NOTICE_TIMEOUT_MS = 10_000
BLOCKED = "blocked:"
"""How the refusal of an address reads (contract §11, outbound rules)."""
RECEIVED = "signal_received"
"""The audit row of a custom signal that no gate waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a person said, in a form the gate accepts."""

    value: Any
    payload: Any
    comment: str | None = None


class Ambiguous(Exception):
    """A nameless signal that several gates could take."""


def comes_first(block: document.Step) -> bool:
    """Tell whether a gate stands before the handler."""
    return block.wait_for_input is not None


def comes_last(block: document.Step) -> bool:
    """Tell whether a gate stands behind the handler."""
    return block.wait_for_input is None and bool(block.wait_for_signal)


def open_gate(turn: Turn, step: Step) -> None:
    """Start to wait for a person; an answer that came early is taken at once.

    While the instance is held, a gate before the handler stays shut: that step has not begun.
    """
    is_first = comes_first(block_of(turn, step.key))
    if is_first:
        budgets.check(turn)
    if turn.instance.is_held and is_first:
        turn.put_step(replace(step, state=StepState.HELD, activity=Activity.SCHEDULED, wake_at=None, ready_at=None))
        return
    gate = _gate_of(block_of(turn, step.key))
    wake_at = after(turn.now, gate.timeout) if gate.timeout is not None else None
    waiting = replace(
        step,
        state=StepState.GATE,
        activity=Activity.WAITING,
        wake_at=wake_at,
        ready_at=turn.now,
        token=None,
        worker_id=None,
        slot=None,
        claimed_at=None,
        expires_at=None,
    )
    turn.put_step(waiting)
    if turn.instance.dry_run and turn.instance.dry_run_auto_approve:
        _take(turn, waiting, Answer(value=_first_choice(turn, waiting), payload=None))
        return
    for signal in turn.kept_signals():
        if _is_for(turn, waiting, signal):
            turn.consume_signal(signal.id)
            if (answer := _read(turn, waiting, signal)) is not None and _takes(turn, waiting, answer):
                return
    _notify(turn, waiting)


def _notify(turn: Turn, step: Step) -> None:
    """Tell whoever the step's `notify_url` names that somebody is waited for.

    The handler `human_review` does that by itself where it runs before its gate.
    """
    block = block_of(turn, step.key)
    given = block.params if isinstance(block.params, dict) else {}
    if "notify_url" not in given or turn.instance.dry_run:
        return
    if comes_last(block) and block.handler == REVIEW:
        return
    try:
        params = prepare(turn, step.key).params
    except InputError:
        return  # the step fails by it when its handler is to run
    if not isinstance(params, dict) or not isinstance(params.get("notify_url"), str) or not params["notify_url"]:
        return
    gate = _gate_of(block)
    choices = gate.effective_choices if isinstance(gate, document.WaitForInput) else ()
    request = {
        "url": params["notify_url"],
        "method": "POST",
        "headers": params.get("notify_headers"),
        "timeout_ms": NOTICE_TIMEOUT_MS,
        "body": {
            "type": "human_review_pending",
            "instance_id": str(turn.instance.id),
            "block_id": block.id,
            "reviewer": params.get("reviewer", "unassigned"),
            "instructions": params.get("instructions", ""),
            "review_data": params.get("review_data"),
            "choices": [choice.model_dump() for choice in choices],
        },
    }
    asides.call(turn, block.id, "http_request", request, kind=Kind.NOTICE, step=asides.to_json(step.key))


def notice_ended(turn: Turn, call: Step, key: NodeKey, error: str | None) -> None:
    """Fail the step at its gate if its notification may not be sent; other troubles of the notification are its own."""
    step = turn.step(key)
    is_blocked = error is not None and error.startswith(BLOCKED)
    if is_blocked and step is not None and step.state is StepState.GATE and step.ready_at == call.entered_at:
        fail_step(turn, step, Failed(message=error or "", retryable=False, kind=FailureKind.INPUT))


def _takes(turn: Turn, step: Step, answer: Answer) -> bool:
    """Take an answer that came early; one that the context has no room for is swallowed, as a wrong one is."""
    try:
        _take(turn, step, answer)
    except TooLarge:
        return False
    return True


def receive(turn: Turn, signal: KeptSignal) -> None:
    """Hand a custom signal to the gate it answers; keep it for later when no such gate is open.

    One that no gate waits for, now or later, only leaves an audit row: of its name, as its payload may be secret.

    Raises:
        Ambiguous: The signal has no name and several gates are open.
        TooLarge: The context has no room for the answer; the gate stays open.
    """
    waiting = [step for step in turn.open_steps() if step.state is StepState.GATE]
    if signal.name is None and len(waiting) > 1:
        names = ", ".join(sorted(repr(step.key.block_id) for step in waiting))
        raise Ambiguous(f"several gates are open ({names}): name the one that is meant")
    for step in waiting:
        if _is_for(turn, step, signal):
            answer = _read(turn, step, signal)
            if answer is not None:
                _take(turn, step, answer)
            return
    if _may_be_answer(turn, signal):
        turn.keep_signal(signal)
    else:
        turn.record_event(RECEIVED, None, {"signal_id": str(signal.id), "signal_type": {"custom": signal.name}})


def time_out(turn: Turn, step: Step) -> None:
    """End a wait that nobody answered: escalate if the gate says how, else fail the step."""
    gate = _gate_of(block_of(turn, step.key))
    seconds = gate.timeout.total_seconds() if gate.timeout is not None else 0
    if gate.escalation_handler is None:
        message = f"human input timed out after {seconds:g} seconds"
        fail_step(turn, step, Failed(message=message, retryable=False, kind=FailureKind.TIMEOUT))
        return
    turn.add_output(
        step.key,
        {
            "_escalated": True,
            "_escalation_handler": gate.escalation_handler,
            "_timeout_seconds": int(seconds) if seconds == int(seconds) else seconds,
        },
    )
    told = {
        "instance_id": str(turn.instance.id),
        "block_id": step.key.block_id,
        "prompt": gate.prompt,
        "reason": "timeout",
    }
    asides.call(turn, step.key.block_id, gate.escalation_handler, told)
    complete_step(turn, step)


def _gate_of(block: document.Step) -> document.WaitForInput | document.WaitForSignal:
    gate = block.wait_for_input or block.wait_for_signal
    if isinstance(gate, document.WaitForInput | document.WaitForSignal):
        return gate
    return document.WaitForSignal()


def _is_for(turn: Turn, step: Step, signal: KeptSignal) -> bool:
    return signal.name is None or signal.name in _signal_names(block_of(turn, step.key))


def _signal_names(block: document.Step) -> frozenset[str]:
    """Give the names of the signals that answer a gate."""
    named = HUMAN_INPUT_PREFIX + block.id
    if comes_first(block):
        return frozenset({named})
    gate = _gate_of(block)
    own_name = gate.name if isinstance(gate, document.WaitForSignal) else None
    return frozenset({named, own_name or block.id})


def _may_be_answer(turn: Turn, signal: KeptSignal) -> bool:
    if signal.name is None:
        return True
    gates = (
        place.block
        for place in turn.plan.places.values()
        if isinstance(place.block, document.Step) and (comes_first(place.block) or comes_last(place.block))
    )
    return any(signal.name in _signal_names(block) for block in gates)


def _read(turn: Turn, step: Step, signal: KeptSignal) -> Answer | None:
    gate = _gate_of(block_of(turn, step.key))
    if isinstance(gate, document.WaitForSignal):
        return Answer(value=signal.payload, payload=signal.payload)
    values = [choice.value for choice in gate.effective_choices]
    choose = nameless_choice if signal.name is None else exact_choice
    value = choose(signal.payload, values)
    if value is None:
        return None
    comment = signal.payload.get("comment") if isinstance(signal.payload, dict) and gate.allow_comment else None
    return Answer(value=value, payload=signal.payload, comment=comment if isinstance(comment, str) else None)


def _first_choice(turn: Turn, step: Step) -> Any:
    gate = _gate_of(block_of(turn, step.key))
    return gate.effective_choices[0].value if isinstance(gate, document.WaitForInput) else {}


def _take(turn: Turn, step: Step, answer: Answer) -> None:
    gate = _gate_of(block_of(turn, step.key))
    if isinstance(gate, document.WaitForSignal):
        payload = answer.value
        write_checked(turn, step.key, {step.key.block_id: payload})
        turn.add_output(step.key, payload if isinstance(payload, dict) else {"value": payload}, attempt=step.attempt)
        complete_step(turn, step)
        return
    row: dict[str, Any] = {"value": answer.value, GATE_MARK: True, "responded_at": rfc3339(turn.now)}
    if answer.comment is not None:
        row["comment"] = answer.comment
    if answer.payload is not None:
        row["payload"] = answer.payload
    write_checked(turn, step.key, {gate.store_as or step.key.block_id: answer.value})
    turn.add_output(step.key, row)
    windows.make_ready_within(turn, step)
