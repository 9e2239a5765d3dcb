"""The decision: what an event changes in an instance. Pure and total.

`decide` either says what changes, or names what it would have to read first. It is called again with more in hand
until it can say. Nothing is mutated and nothing is awaited.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, assert_never

from orchestrator.core import (
    announcing,
    attempts,
    called,
    cancellation,
    children,
    composites,
    context,
    control,
    gates,
    hooks,
    injection,
    interceptors,
    migration,
    recovery,
    resumption,
    sla,
)
from orchestrator.core.changes import Change, TransitionRecorded
from orchestrator.core.events import (
    AttemptFinished,
    AttemptLost,
    AttemptReturned,
    BatchActed,
    BlocksInjected,
    CancelRequested,
    ChildEnded,
    ContextReplaced,
    ContextUpdated,
    Created,
    Event,
    MailArrived,
    Migrated,
    PauseRequested,
    Rescheduled,
    ResumedFrom,
    ResumeRequested,
    RetryRequested,
    SignalReceived,
    StateForced,
    TimerFired,
)
from orchestrator.core.facts import Facts
from orchestrator.core.model import ROOT_KEY, Claim, Instance, KeptSignal, NodeKey, Step, is_beside
from orchestrator.core.slice import Needs, Slice, Unloaded
from orchestrator.core.states import INSTANCE_MOVES, InstanceState, NodeState, StepState, route
from orchestrator.core.turn import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What an event changes.

    Args:
        changes: In the order they were decided; empty when the event came too late to mean anything.
        is_stale: The event spoke for a claim, or for a moment, that is no longer current.
        refusal: Why a client's request cannot be done; nothing changes then.
        is_too_large: Whether that is because the context has no room for it.
    """

    changes: tuple[Change, ...] = ()
    is_stale: bool = False
    refusal: str | None = None
    is_too_large: bool = False


def decide(current: Slice, event: Event, facts: Facts) -> Decision | Needs:
    """Say what an event changes in an instance, or what must be loaded to say it."""
    if isinstance(event, BatchActed):
        return _batch_acted(current, event, facts)
    if isinstance(event, MailArrived):
        return _open_letter(current, facts)
    return _decide(Turn(current, facts), event)


def _open_letter(current: Slice, facts: Facts) -> Decision | Needs:
    """Do what the oldest letter says. One that says nothing any more is opened all the same, so that it goes away."""
    if current.instance.state.is_terminal:
        return Decision(is_stale=True)
    try:
        letter = current.oldest_letter()
    except Unloaded as unloaded:
        return unloaded.needs
    if letter is None:
        return Decision(is_stale=True)
    turn = Turn(current, facts)
    turn.open_letter(letter.id)
    decision = _decide(turn, letter.event)
    if isinstance(decision, Needs) or decision.changes:
        return decision
    turn = Turn(current, facts)
    turn.open_letter(letter.id)
    return Decision(changes=turn.changes())


def _decide(turn: Turn, event: Event) -> Decision | Needs:
    refusal = _refusal(turn.instance, event)
    if refusal is not None:
        return Decision(refusal=refusal)
    try:
        interceptors.signalled(turn, event)
        if not _begin(turn, event):
            return Decision(is_stale=True)
        _hear_itself(turn)
        composites.walk(turn)
        if not isinstance(event, StateForced) and control.keeps_from_ending(turn):
            turn.ending = None
        if turn.ending is not None and turn.instance.round > 0:
            cancellation.withdraw_everything(turn)  # a plan that was replaced may leave open what it no longer reaches
        _see_to_what_is_beside(turn, event)
        _settle_instance(turn, event)
    except Unloaded as unloaded:
        return unloaded.needs
    except (gates.Ambiguous, injection.Refused, resumption.NotARootBlock) as refused:
        return Decision(refusal=str(refused))
    except context.TooLarge as too_large:
        return Decision(refusal=str(too_large), is_too_large=True)
    return Decision(changes=turn.changes())


def _hear_itself(turn: Turn) -> None:
    """Take in the signals that a handler has sent to its own instance, before the next block begins (§9.4).

    Nobody is there to be told that one is refused: it is dropped, as one for an instance that has ended.
    """
    while turn.sent_to_itself:
        signal = turn.sent_to_itself.popleft()
        if _refusal(turn.instance, signal) is not None:
            continue
        interceptors.signalled(turn, signal)
        with suppress(gates.Ambiguous, context.TooLarge):
            _begin(turn, signal)


def _batch_acted(current: Slice, event: BatchActed, facts: Facts) -> Decision | Needs:
    """Decide what a batch action does to one of its instances, and note that it did."""
    decision = decide(current, event.event, facts)
    if isinstance(decision, Needs) or not decision.changes:
        return decision
    row = TransitionRecorded(
        id=facts.new_id(facts.now),
        from_state=current.instance.state,
        to_state=None,
        block_id=None,
        details={"action": event.action},
        created_at=facts.now,
        event="batch_action",
    )
    return replace(decision, changes=(*decision.changes, row))


def _refusal(instance: Instance, event: Event) -> str | None:
    """Say why a client's request cannot be done in this state; a request may come a moment too late."""
    state = instance.state
    match event:
        case AttemptFinished() | TimerFired():
            return None
        case PauseRequested() | ResumeRequested() | CancelRequested() | ContextUpdated() | SignalReceived():
            ended = f"cannot send signal to instance {instance.id}: target is in a terminal state"
            return ended if state.is_terminal else None
        case Migrated() if state.is_terminal:
            return f"cannot migrate instance {instance.id}: it has ended ({state})"
        case ResumedFrom(is_copy=False) if not state.is_terminal and state is not InstanceState.PAUSED:
            return f"can only resume failed, paused, completed or cancelled instances, current state: {state}"
        case RetryRequested() if state is not InstanceState.FAILED:
            return f"can only retry failed instances, current state: {state}"
        case StateForced(state=target, is_checked=True) if target not in INSTANCE_MOVES[state]:
            return f"cannot transition from {state} to {target}"
        case Rescheduled() if state is not InstanceState.SCHEDULED:
            return f"only scheduled instances can be rescheduled, current state: {state}"
        case _:
            return None


def _begin(turn: Turn, event: Event) -> bool:  # noqa: PLR0912 - one case for each event
    match event:
        case Created():
            control.start(turn, event.not_before)
        case AttemptFinished(claim=claim, outcome=outcome):
            if (step := _claimed_step(turn, claim)) is None:
                return False
            turn.record_logs(claim.key.block_id, event.logs)
            (called if is_beside(claim.key) else attempts).finish(turn, step, outcome)
        case AttemptLost(claim=claim, reason=reason):
            if (step := _claimed_step(turn, claim)) is None:
                return False
            (called if is_beside(claim.key) else recovery).lose(turn, step, reason)
        case AttemptReturned(claim=claim):
            if (step := _claimed_step(turn, claim)) is None:
                return False
            (called if is_beside(claim.key) else recovery).give_back(turn, step)
        case TimerFired(key=key, due_at=due_at):
            turn.queue_as_of(due_at)
            return _timer_fired(turn, key, due_at)
        case PauseRequested():
            control.pause(turn)
        case ResumeRequested():
            control.resume(turn)
        case CancelRequested():
            cancellation.request_cancel(turn)
        case ContextUpdated(data=data):
            context.merge_checked(turn, data)
        case ContextReplaced(data=data, config=config):
            context.replace_data(turn, data, config)
        case SignalReceived():
            gates.receive(turn, KeptSignal(id=event.id, name=event.name, payload=event.payload))
        case RetryRequested():
            control.retry(turn)
        case ResumedFrom(block_id=block_id, data=data, signals=signals):
            resumption.go_on_from(turn, block_id, data, signals)
        case StateForced(state=state, not_before=not_before):
            control.force(turn, state, not_before)
        case Rescheduled(by=by):
            control.reschedule(turn, by)
        case BlocksInjected(blocks=injected, position=position):
            injection.inject(turn, injected, position)
        case ChildEnded():
            return not turn.instance.state.is_terminal and children.child_ended(turn, event)
        case MailArrived():
            return False  # a letter holds no news of letters
        case BatchActed():
            raise TypeError("a batch action is decided by what it wraps")
        case Migrated(sequence_id=sequence_id, plan=plan):
            migration.migrate(turn, sequence_id, plan)
        case _:
            assert_never(event)
    return True


def _claimed_step(turn: Turn, claim: Claim) -> Step | None:
    """Find the step a report speaks for. Calls beside the flow go on when the instance has ended."""
    if turn.instance.state.is_terminal and not is_beside(claim.key):
        return None
    step = turn.step(claim.key)
    is_current = step is not None and step.state is StepState.CLAIMED and step.token == claim.token
    return step if is_current else None


def _timer_fired(turn: Turn, key: NodeKey, due_at: datetime | None) -> bool:
    if is_beside(key) and (call := turn.step(key)) is not None:
        return called.wake(turn, call)
    if turn.instance.state.is_terminal:
        return False
    if key == ROOT_KEY:
        return _still_stands(turn, key, due_at) and control.start_time_came(turn)
    if is_beside(key):
        return sla.alarm(turn, key)
    if turn.plan.is_composite(key.block_id) and _still_stands(turn, key, due_at) and composites.poll(turn, key):
        return True
    step = turn.step(key)
    if step is None or step.timer_at is None or step.timer_at > turn.now:
        return False
    attempts.wake(turn, step)
    return True


def _still_stands(turn: Turn, key: NodeKey, due_at: datetime | None) -> bool:
    """Tell whether the timer that was seen has not been set anew since. The moment of a step stands on its own row."""
    return due_at is None or turn.slice.timer(key) == due_at


def _see_to_what_is_beside(turn: Turn, event: Event) -> None:
    """Call and watch, beside the flow, what the definition asks for after all that this event has moved."""
    turn.keeps_updated_at = turn.slice.instance.state.is_terminal and _is_about_a_call(event)
    interceptors.announce(turn)
    if turn.ending is not None:
        state = _final_state(turn.ending.state, is_cancelling=turn.instance.is_cancelling)
        interceptors.ended(turn, state, turn.ending.error)
        hooks.begin(turn, state, turn.ending.error)
    if turn.plan.definition.sla is not None:
        sla.watch(turn, begins=isinstance(event, Created) or _begins(turn.slice.instance, turn.instance))


def _begins(former: Instance, now: Instance) -> bool:
    """Tell whether an instance has been started, as a child is by its parent, or reopened."""
    return former.round != now.round or (former.started_at is None and now.started_at is not None)


def _is_about_a_call(event: Event) -> bool:
    match event:
        case AttemptFinished(claim=claim) | AttemptLost(claim=claim) | AttemptReturned(claim=claim):
            return is_beside(claim.key)
        case TimerFired(key=key):
            return is_beside(key)
        case _:
            return False


def _settle_instance(turn: Turn, event: Event) -> None:
    former = turn.instance.state
    if turn.ending is not None and turn.instance.scheduled:
        turn.drop_timer(ROOT_KEY)  # nothing is open any more: what is left is the wait for a moment a client chose
    state = _state_of(turn, event)
    if state is not former:
        turn.amend(state=state)
    if state.is_terminal and not former.is_terminal:
        children.tell_parent(turn, state)
        announcing.ended(turn, state, event)
    if isinstance(event, StateForced):
        return
    for target in route(former, state):
        if (former, target) != (InstanceState.SCHEDULED, InstanceState.RUNNING):
            details: dict[str, Any] = (
                {"error": turn.ending.error.to_json()} if turn.ending and turn.ending.error else {}
            )
            if turn.instance.parked_reason is not None and target is InstanceState.PAUSED:
                details = {"parked_reason": turn.instance.parked_reason}
            block_id = turn.ending.error.step_id if turn.ending and turn.ending.error else None
            turn.record_transition(former, target, block_id, details)
        former = target


def _state_of(turn: Turn, event: Event) -> InstanceState:
    instance = turn.instance
    if turn.ending is not None:
        return _final_state(turn.ending.state, is_cancelling=instance.is_cancelling)
    is_reopened = isinstance(event, RetryRequested | ResumedFrom) or (
        isinstance(event, StateForced) and event.state is not instance.state
    )
    if instance.state.is_terminal and not is_reopened:
        return instance.state
    if isinstance(event, StateForced) and event.state in {InstanceState.PAUSED, InstanceState.WAITING}:
        return event.state
    if instance.is_held and instance.state is InstanceState.PAUSED and not isinstance(event, StateForced):
        return InstanceState.PAUSED
    if control.is_put_off(turn):
        return InstanceState.SCHEDULED
    if instance.running:
        return InstanceState.RUNNING
    if instance.waiting and not control.comes_to_rest(turn):
        return InstanceState.WAITING
    if control.was_set_to_wait(turn):
        return InstanceState.WAITING
    return InstanceState.PAUSED if instance.is_held else InstanceState.SCHEDULED


def _final_state(result: NodeState, *, is_cancelling: bool) -> InstanceState:
    if result is NodeState.FAILED:
        return InstanceState.FAILED
    if result is NodeState.CANCELLED or is_cancelling:
        return InstanceState.CANCELLED
    return InstanceState.COMPLETED
