"""What people do to a whole instance: pause, resume, set its state, retry it (sequences contract §9.2, §9.4, §9.7)."""

from datetime import datetime, timedelta

from orchestrator.core import hooks
from orchestrator.core.attempts import release
from orchestrator.core.calendars import shifted
from orchestrator.core.cancellation import drop_start_timer, waits_for_its_start, withdraw_everything
from orchestrator.core.holding import hold, release_held
from orchestrator.core.model import ROOT_KEY, NodeKey, Step
from orchestrator.core.reopening import reopen
from orchestrator.core.slice import Needs, Unloaded
from orchestrator.core.states import Activity, InstanceState, NodeState, StepState
from orchestrator.core.steps import block_of, runs_in_process
from orchestrator.core.turn import Enter, Turn
from orchestrator.core.values import replace


def start(turn: Turn, not_before: datetime | None) -> None:
    """Begin with the first block, now or at a moment in the future."""
    if not_before is not None and not_before > turn.now:
        turn.put_timer(ROOT_KEY, not_before)
        return
    turn.queue_as_of(not_before)
    turn.amend(started_at=turn.now)
    turn.todo.append(Enter(NodeKey(turn.plan.root[0])))


def start_time_came(turn: Turn) -> bool:
    """Begin, or go on, when the moment a client chose has come; False if no such moment is awaited any more."""
    if not drop_start_timer(turn):
        return False
    if turn.instance.started_at is None:
        start(turn, None)
        return True
    was_put_off = turn.instance.is_held
    turn.amend(is_held=False, parked_reason=None)
    if was_put_off and has_stopped(turn):  # what was waited for has come meanwhile, and was the last
        _go_through_again(turn)
        return True
    release_held(turn)
    turn.walks_again = turn.instance.round > 0  # a migration meanwhile has entered nothing
    return True


def is_put_off(turn: Turn) -> bool:
    """Tell whether a client has put a started instance off to a moment: it is `scheduled`, and held until then."""
    instance = turn.instance
    return instance.is_held and instance.started_at is not None and waits_for_its_start(turn)


def pause(turn: Turn) -> None:
    """Let no further step start. A running handler and an uncancellable sleep finish first; a wait goes on."""
    _forget_chosen_moment(turn)
    turn.amend(is_held=True)
    is_only_waiting = turn.instance.waiting and not turn.instance.running
    if is_only_waiting:
        return
    for step in turn.open_steps():
        sleeps = step.state is StepState.ASLEEP and block_of(turn, step.key).cancellable
        if sleeps or (step.state is StepState.READY and runs_in_process(step.handler)):
            hold(turn, step)


def comes_to_rest(turn: Turn) -> bool:
    """Tell whether a held flow is paused now although outsiders are waited for; unclaimed tasks are taken back.

    So it is for a flow that was running, or put off, when it was paused: its handlers have ended, gates stay open. One
    that was only waiting goes on to wait (§9.2), and so does one whose task is in the hands of an outsider.
    """
    instance = turn.instance
    if not instance.is_held or instance.state not in {InstanceState.RUNNING, InstanceState.SCHEDULED}:
        return False
    steps = turn.open_steps()
    if any(step.state is StepState.CLAIMED for step in steps):
        return False
    for step in steps:
        if step.state is StepState.READY:
            hold(turn, step)
    return True


def keeps_from_ending(turn: Turn) -> bool:
    """Tell whether a pause that came while the last step ran is applied before the instance completes (§9.4).

    Nothing is left to run then; the resume ends the instance. A failure is not put off: nothing would come of that. Nor
    is a cancel, which takes effect when the shielded work is done (§9.5).
    """
    instance, ending = turn.instance, turn.ending
    completes = ending is not None and ending.state is NodeState.COMPLETED and not instance.is_cancelling
    return completes and instance.is_held


def park(turn: Turn, step: Step, reason: str) -> None:
    """Stop the instance for a human and say why; the step is tried again after a resume."""
    turn.amend(is_held=True, parked_reason=reason)
    hold(turn, replace(step, losses=0))


def resume(turn: Turn) -> None:
    """Go on after a pause, due now (§9.4); no effect on an instance that is not paused."""
    if turn.instance.is_held and not is_put_off(turn):
        turn.amend(is_held=False, parked_reason=None)
        if has_stopped(turn):
            if _has_failed(turn):
                turn.remove_error_rows()
            _go_through_again(turn)
        elif not _begin_after_pause(turn):
            release_held(turn)


def _begin_after_pause(turn: Turn) -> bool:
    """Make due what was put off to a moment in the future; a first pick-up still waits for more signals."""
    if turn.instance.started_at is None and turn.facts.first_wait and drop_start_timer(turn):
        turn.put_timer(ROOT_KEY, turn.now + turn.facts.first_wait)
        return True
    return start_time_came(turn)


def force(turn: Turn, state: InstanceState, not_before: datetime | None) -> None:
    """Bring an instance to the state a client set; its work ends or goes on as the state says."""
    if turn.instance.state.is_terminal and turn.instance.state is state:
        return
    match state:
        case InstanceState.COMPLETED | InstanceState.FAILED | InstanceState.CANCELLED:
            withdraw_everything(turn)
            turn.amend(is_cancelling=False)
            turn.end(NodeState(state.value), None)
        case InstanceState.PAUSED:
            _forget_chosen_moment(turn)
            turn.amend(is_held=True)
            _hold_all(turn)
        case InstanceState.WAITING:
            _forget_chosen_moment(turn)
            turn.amend(is_held=True)
            _hold_what_runs_here(turn)
        case InstanceState.SCHEDULED | InstanceState.RUNNING:
            _set_going(turn, not_before)


def was_set_to_wait(turn: Turn) -> bool:
    """Tell whether a client has set the state to `waiting` and no outsider is waited for: it waits for the client."""
    instance, former = turn.instance, turn.slice.instance
    return instance.is_held and instance.state is InstanceState.WAITING and not former.waiting


def has_stopped(turn: Turn) -> bool:
    """Tell whether nothing would ever move the instance: it had ended, or was about to, when it was paused."""
    return not turn.instance.scheduled and not turn.open_steps() and not turn.open_nodes()


def _has_failed(turn: Turn) -> bool:
    """Tell whether a root block has failed; if none has, all failures were caught, and their rows stay."""
    root = frozenset(turn.plan.root)
    return any(node.state is NodeState.FAILED and node.key.block_id in root for node in turn.ended_badly())


def reschedule(turn: Turn, by: timedelta) -> None:
    """Put off, or bring forward, every moment that a scheduled instance waits for."""
    for step in turn.open_steps():
        if step.wake_at is not None and step.activity is Activity.SCHEDULED:
            turn.put_step(replace(step, wake_at=shifted(step.wake_at, by)))
    polling = (node.key for node in turn.open_nodes() if node.memory.get("polling"))
    turn.shift_timers((ROOT_KEY, *polling), by)


def _forget_chosen_moment(turn: Turn) -> None:
    """Let what ends the pause decide when a started instance goes on, no more the moment a client chose before."""
    if turn.instance.started_at is not None:
        drop_start_timer(turn)


def _hold_all(turn: Turn) -> None:
    for step in turn.open_steps():
        _hold(turn, step)


def _hold(turn: Turn, step: Step) -> None:
    if step.state is StepState.INTERCEPTED:
        release(turn, step, None)
    if step.state is StepState.CLAIMED:
        turn.record_attempt(step, "cancelled")
    if step.state in {StepState.CLAIMED, StepState.READY, StepState.ASLEEP}:
        hold(turn, step)


def _hold_what_runs_here(turn: Turn) -> None:
    """Stop our own handlers; the tasks and gates of outsiders stay open, for a waiting flow promises them."""
    for step in turn.open_steps():
        if step.activity is Activity.RUNNING:
            _hold(turn, step)


def _set_going(turn: Turn, not_before: datetime | None) -> None:
    later = not_before if not_before is not None and not_before > turn.now else None
    is_to_start = drop_start_timer(turn) and turn.instance.started_at is None
    if turn.instance.state.is_terminal or (has_stopped(turn) and not is_to_start):
        retry(turn, later)
        return
    turn.amend(is_held=False, parked_reason=None)
    if turn.instance.started_at is None:
        start(turn, not_before)
        return
    _hold_all(turn)
    if later is not None:
        turn.amend(is_held=True)
        turn.put_timer(ROOT_KEY, later)
    else:
        release_held(turn)
        turn.walks_again = turn.instance.round > 0


def retry(turn: Turn, not_before: datetime | None = None) -> None:
    """Reopen an instance that has ended: completed steps keep their rows, the failed one is tried again.

    Args:
        not_before: A moment in the future to go on at; None goes on now.
    """
    turn.amend(run_id=turn.new_id())
    turn.remove_error_rows()
    _go_through_again(turn, not_before)


def _go_through_again(turn: Turn, not_before: datetime | None = None) -> None:
    """Walk from the first block, past all that has ended well, and end again if that is all."""
    root = [NodeKey(block_id) for block_id in turn.plan.root]
    unknown = frozenset(key for key in root if key not in turn.slice.nodes)
    if unknown:
        raise Unloaded(Needs(nodes=unknown))
    reopen(turn)
    hooks.drop(turn)
    turn.amend(
        round=turn.instance.round + 1,
        iterations=0,
        is_held=False,
        is_cancelling=False,
        parked_reason=None,
        started_at=turn.instance.started_at or turn.now,
    )
    if not_before is not None:
        turn.put_timer(ROOT_KEY, not_before)
        return
    turn.todo.append(Enter(root[0]))
