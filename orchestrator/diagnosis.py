"""Why an instance stands where it stands, and what will happen to it next.

Told from one look at the store (`store/standing.py`), by the doctor and by the API alike; nothing is asked here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from orchestrator import failure_groups
from orchestrator.core.budgets import REASON as BUDGET
from orchestrator.core.model import ROOT_KEY, NodeKey, Step, is_beside
from orchestrator.core.plan import Plan
from orchestrator.core.states import InstanceState, StepState
from orchestrator.core.steps import runs_in_process
from orchestrator.findings import Finding, Severity, error, note, warning
from orchestrator.store.standing import Child, Hands, OpenStep, Standing
from sequences import document
from sequences.signals import HUMAN_INPUT_PREFIX

LATE: Final = timedelta(seconds=30)
"""How long after its moment a timer that was not fired, or a claim that was not taken back, means that no loops run."""
_GRAVEST: Final = (Severity.ERROR, Severity.WARNING, Severity.NOTE)
_ABOUT_THE_WHOLE: Final = frozenset({"state", "cancelling"})

_WAITS: Final[dict[StepState, tuple[str, str]]] = {
    StepState.WINDOW: ("waits for its send window to open", "nothing"),
    StepState.DELAYED: ("waits for its delay to be over", "nothing"),
    StepState.ASLEEP: ("sleeps", "nothing"),
    StepState.HELD: ("is held while the instance is paused", "resume the instance"),
    StepState.INTERCEPTED: ("has ended, and waits for the interceptor behind it", "see that its handler is served"),
}
_MOMENTS: Final[dict[StepState, str]] = {
    StepState.DELAYED: "the delay of step {0} is over",
    StepState.WINDOW: "the send window of step {0} opens",
    StepState.BACKOFF: "step {0} is tried again",
    StepState.ASLEEP: "step {0} wakes up",
    StepState.GATE: "the time to answer step {0} is over",
    StepState.READY: "the time of step {0} is over",
    StepState.CLAIMED: "the time of step {0} is over",
    StepState.INTERCEPTED: "step {0} goes on without its interceptor",
    StepState.HELD: "step {0} stays held",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NextEvent:
    """What will happen next; `at` is None when it is up to somebody."""

    what: str
    at: datetime | None = None
    block_id: str | None = None


def explain(standing: Standing, plan: Plan | None = None) -> list[Finding]:
    """Say what an instance waits for, or how it has ended.

    Args:
        plan: Its definition, for what a gate asks; None leaves that out.
    """
    found = [*_whole(standing), *_pauses(standing), *_ended(standing)]
    if not standing.instance.state.is_terminal:
        found += [_step(each, standing, plan) for each in standing.steps]
        found += [*_timers(standing), *map(_child, standing.children), *_letters(standing), *_nothing_open(standing)]
    return found


def summary(findings: list[Finding]) -> str:
    """Give the gravest of the findings in words; that an instance has a state says least."""
    ranked = sorted(findings, key=lambda each: (each.name in _ABOUT_THE_WHOLE, _GRAVEST.index(each.severity)))
    return ranked[0].what


def next_event(standing: Standing) -> NextEvent | None:
    """Say what happens next: the nearest moment, else what others do; None if nothing will."""
    if standing.instance.state.is_terminal:
        return None
    if standing.instance.state is InstanceState.PAUSED:
        return NextEvent(what="somebody resumes the instance")
    steps = {each.step.key: each.step for each in standing.steps}
    for key, due_at in standing.timers:
        return NextEvent(what=_moment(key, due_at, steps.get(key)), at=due_at, block_id=key.block_id or None)
    return next((_act(step) for step in steps.values() if step.state is not StepState.HELD), None) or next(
        (NextEvent(what=f"child {each.id} ends", block_id=each.block_id or None) for each in standing.children), None
    )


def _moment(key: NodeKey, due_at: datetime, step: Step | None) -> str:
    if key == ROOT_KEY:
        return "the instance starts, or goes on, at the moment that was chosen"
    if step is None:
        return f"{key.block_id!r} is looked at" if is_beside(key) else f"block {key.block_id!r} goes on"
    if step.deadline_at == due_at:
        return f"the deadline of step {key.block_id!r} is over"
    return _MOMENTS[step.state].format(repr(key.block_id))


def _act(step: Step) -> NextEvent:
    name = repr(step.key.block_id)
    what = {
        StepState.READY: f"a worker claims step {name}",
        StepState.CLAIMED: f"the worker reports about step {name}",
        StepState.GATE: f"somebody answers step {name}",
    }.get(step.state, f"step {name} goes on")
    return NextEvent(what=what, block_id=step.key.block_id)


def _whole(standing: Standing) -> Iterator[Finding]:
    instance = standing.instance
    if instance.is_cancelling and not instance.state.is_terminal:
        yield note("cancelling", "it is being cancelled: steps that cannot be are run to their end")
    seconds = _seconds(standing.now - instance.updated_at)
    yield note("state", f"it is {instance.state.value}, unchanged for {seconds} s", details={"state": instance.state})


def _pauses(standing: Standing) -> Iterator[Finding]:
    instance = standing.instance
    if not instance.is_held or instance.state.is_terminal or instance.state is InstanceState.SCHEDULED:
        return
    reason = instance.parked_reason
    if reason is not None:
        kind = "budget" if reason.startswith(BUDGET) else "poison"
        about = {"reason": reason, "kind": kind}
        yield warning("parked", f"it was parked: {reason}", "remove the cause, then resume it", details=about)
        return
    move = standing.last_move if instance.state is InstanceState.PAUSED else None
    details: dict[str, Any] = {} if move is None else {"since": move[0], "event_type": move[1], **move[2]}
    if any(each.step.state is StepState.CLAIMED for each in standing.steps):
        yield note("pausing", "it pauses as soon as what runs has ended", "resume it to go on", details=details)
    else:
        by = f", by {details['action']!r} of many" if "action" in details else ""
        is_still_waiting = instance.state is not InstanceState.PAUSED
        when = "; what it waits for goes on, and nothing behind that begins" if is_still_waiting else ""
        yield note("paused", f"it was paused by a client{by}{when}", "resume it", details=details)


def _ended(standing: Standing) -> Iterator[Finding]:
    match standing.instance.state:
        case InstanceState.FAILED:
            yield _failed(standing)
        case InstanceState.CANCELLED:
            yield note("cancelled", "it was cancelled, by a client or with its parent")
        case InstanceState.COMPLETED:
            yield note("completed", "it has completed")
        case _:
            pass


def _failed(standing: Standing) -> Finding:
    said: Any = (standing.last_move[2] if standing.last_move is not None else {}).get("error")
    told: dict[str, Any] = said if isinstance(said, dict) else {}
    details: dict[str, Any] = {"error": told or None}
    last = standing.failure
    if last is not None and last.block_id is not None:
        details |= {
            "last_attempt": {"block_id": last.block_id, "handler": last.handler, "outcome": last.outcome},
            "attempt_error": last.error,
            "fingerprint": failure_groups.cause_of(last).fingerprint,
        }
    block_id = told.get("step_id")
    where = f"in block {block_id!r}: {told.get('message')}" if block_id else "as a client has set it"
    return error("failed", f"it failed {where}", "remove the cause, then retry it", block_id=block_id, details=details)


def _step(found: OpenStep, standing: Standing, plan: Plan | None) -> Finding:
    step = found.step
    kind = "call" if is_beside(step.key) else "step"
    what = f"{kind} {step.key.block_id!r} ({step.handler}, attempt {step.attempt})"
    about: dict[str, Any] = {"block_id": step.key.block_id, "until": step.timer_at}
    details: dict[str, Any] = {
        "handler": step.handler,
        "queue": step.queue,
        "attempt": step.attempt,
        "iteration": list(step.key.iteration),
        "step_state": step.state,
        "last_error": found.error,
    }
    match step.state:
        case StepState.CLAIMED:
            return _claimed(found, standing, what, {**about, "details": details})
        case StepState.READY:
            return _ready(found, standing, what, {**about, "details": details})
        case StepState.GATE:
            details |= _question(step, plan)
            text = f"{what} waits for a human{_until(step.timer_at)}"
            return note("gate", text, "answer it: orchestrator approvals list", **about, details=details)
        case StepState.BACKOFF:
            said = f": {found.error['message']}" if found.error and found.error.get("message") else ""
            text = f"{what} has failed{said}; it is tried again{_until(step.timer_at)}"
            return note("backoff", text, "read its error", **about, details=details)
        case _:
            waits, remedy = _WAITS[step.state]
            return note(step.state.value, f"{what} {waits}{_until(step.timer_at)}", remedy, **about, details=details)


def _claimed(found: OpenStep, standing: Standing, what: str, about: dict[str, Any]) -> Finding:
    step = found.step
    about["details"] |= {"worker": step.worker_name, "claimed_at": step.claimed_at, "heartbeat_at": found.heartbeat_at}
    text = (
        f"{what} has been run by {step.worker_name} for {_seconds(standing.now - (step.claimed_at or standing.now))} s"
    )
    is_over = step.expires_at is not None and step.expires_at < standing.now - LATE
    if is_over or not found.is_worker_alive:
        lost = "its time is over" if is_over else "that worker sends no heartbeats any more"
        return warning("stuck_claim", f"{text}, and {lost}", "see that service loops run: they give it away", **about)
    return note("running", text, "look at the worker, if that is too long", **about)


def _ready(found: OpenStep, standing: Standing, what: str, about: dict[str, Any]) -> Finding:
    step, hands = found.step, standing.hands.get(found.step.handler, Hands())
    since = _seconds(standing.now - (step.ready_at or step.entered_at))
    about["details"] |= {
        "ready_at": step.ready_at,
        "hints": found.hints,
        "least_version": hands.least_version,
        "breaker": hands.breaker,
    }
    if found.pushes is not None:
        again = _until(found.pushed_again_at) or ", and is not pushed any more"
        return note(
            "pushed",
            f"{what} was pushed {found.pushes} times without an answer{again}",
            "read its receiver's log",
            **about,
        )
    is_ours = bool(hands.own) or runs_in_process(step.handler)
    if not is_ours and not hands.is_polled:
        text = f"{what} is ready on queue {step.queue!r}, and nobody knows its handler: no worker of ours, no poller"
        return warning(
            "unknown_handler", text, "import its module in a worker, or let an external worker poll for it", **about
        )
    polls = step.queue in hands.polled if step.is_queue_named else hands.is_polled
    queues = hands.own if hands.own else standing.served
    if step.queue not in queues and not polls:
        text = f"{what} is ready, and no worker that knows it serves queue {step.queue!r}"
        return warning("queue_without_worker", text, f"start one: orchestrator worker -Q {step.queue}", **about)
    told = f"after {found.hints} hints" if is_ours else "for workers that poll"
    least = f" and have version {hands.least_version}" if hands.least_version is not None and not is_ours else ""
    text = f"{what} is ready on queue {step.queue!r} for {since} s, {told}{least}"
    return note("queued", text, "start more workers, if that is too long", **about)


def _question(step: Step, plan: Plan | None) -> dict[str, Any]:
    """Say what a gate asks, and the signal that answers it."""
    place = plan.places.get(step.key.block_id) if plan is not None else None
    block = place.block if place is not None else None
    if not isinstance(block, document.Step):
        return {}
    if block.wait_for_input is not None:
        choices = [choice.value for choice in block.wait_for_input.effective_choices]
        return {"signal": f"{HUMAN_INPUT_PREFIX}{block.id}", "prompt": block.wait_for_input.prompt, "choices": choices}
    name = block.wait_for_signal.name if isinstance(block.wait_for_signal, document.WaitForSignal) else None
    return {"signal": name or f"{HUMAN_INPUT_PREFIX}{block.id}"}


def _timers(standing: Standing) -> Iterator[Finding]:
    steps = {each.step.key for each in standing.steps}
    for key, due_at in standing.timers:
        if key == ROOT_KEY:
            name = "not_started" if standing.instance.started_at is None else "put_off"
            yield note(name, f"it waits for a moment that was chosen{_until(due_at)}", until=due_at)
        elif key not in steps and not is_beside(key):
            text = f"block {key.block_id!r} waits{_until(due_at)}"
            yield note("polling", text, block_id=key.block_id, until=due_at)
        if due_at < standing.now - LATE:
            late = _seconds(standing.now - due_at)
            text = f"what was due at {due_at:%Y-%m-%d %H:%M:%S} UTC is late by {late} s"
            yield error("late_timer", text, "see that service loops run", block_id=key.block_id or None)


def _child(child: Child) -> Finding:
    text = f"it waits for its child {child.id}, which is {child.state}"
    details = {"instance_id": child.id, "state": child.state}
    return note("child", text, "ask about the child", block_id=child.block_id or None, details=details)


def _letters(standing: Standing) -> Iterator[Finding]:
    if standing.letters:
        text = f"it has not yet read {standing.letters} news of its parent or its children"
        yield note("letters", text, "see that service loops run, if that stays so")


def _nothing_open(standing: Standing) -> Iterator[Finding]:
    parts = (standing.steps, standing.timers, standing.children, standing.letters, standing.instance.is_held)
    if not any(parts):
        yield error("nothing_open", "nothing is open that could move it", "resume it from a block, and report this")


def _until(moment: datetime | None) -> str:
    return "" if moment is None else f", until {moment:%Y-%m-%d %H:%M:%S} UTC"


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())
