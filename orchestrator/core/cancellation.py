"""Ending work that is no longer wanted, and what is shielded from it (sequences contract §9.5).

A cancelled leaf ends as `cancelled` and that end travels up like any other: lists stop, try_catch blocks run their
finally list, and the instance is cancelled when the last shielded leaf is done.
"""

from orchestrator.core import children
from orchestrator.core.holding import release_held, release_loops
from orchestrator.core.model import ROOT_KEY, Node, NodeKey, Step
from orchestrator.core.states import Activity, NodeState, StepState
from orchestrator.core.steps import block_of, cancel_step
from orchestrator.core.turn import Ended, Turn
from orchestrator.core.values import replace

_STARTED = frozenset({StepState.READY, StepState.CLAIMED, StepState.ASLEEP, StepState.GATE, StepState.INTERCEPTED})


def request_cancel(turn: Turn) -> None:
    """Cancel the instance; shielded work that has started is finished first."""
    release_loops(turn)
    had_not_started = not (turn.todo or turn.open_steps() or _polling(turn) or _parents(turn))
    turn.amend(is_cancelling=True, is_held=False, parked_reason=None)
    for step in turn.open_steps():
        if not _is_shielded(turn, step):
            cancel_step(turn, step)
    for node in _polling(turn):
        if not turn.plan.places[node.key.block_id].is_shielded:
            _cancel_polling(turn, node)
    for node in _parents(turn):
        if not turn.plan.places[node.key.block_id].is_shielded:
            children.abandon(turn, node)
    release_held(turn)
    drop_start_timer(turn)
    if had_not_started:
        turn.end(NodeState.CANCELLED, None)


def drop_start_timer(turn: Turn) -> bool:
    """End the wait for the moment at which a client lets the instance start or go on; False if it does not wait."""
    waits = waits_for_its_start(turn)
    if waits:
        turn.drop_timer(ROOT_KEY)
    return waits


def waits_for_its_start(turn: Turn) -> bool:
    """Tell whether a moment is awaited at which a client lets the instance start or go on.

    A slice does not hold timers. This wait is what is counted as scheduled beyond the open steps and polling loops.
    """
    waits = turn.instance.scheduled
    if turn.instance.started_at is not None:
        waits -= sum(s.activity is Activity.SCHEDULED and s.state is not StepState.HELD for s in turn.open_steps())
        waits -= len(_polling(turn))
    return waits > 0


def cancel_inside(turn: Turn, key: NodeKey) -> None:
    """End everything open below a composite that stops; finally lists run to their end.

    What is about to be entered, and what would follow a finally list, is not open yet: the walk turns it away.
    """
    for step in turn.open_steps():
        if key in turn.plan_of(step.key).stoppers(step.key):
            cancel_step(turn, step)
    for node in _polling(turn):
        if key in turn.plan.stoppers(node.key):
            _cancel_polling(turn, node)
    for node in _parents(turn):
        if key in turn.plan.stoppers(node.key):
            children.abandon(turn, node)


def is_still_shielded(turn: Turn, key: NodeKey) -> bool:
    """Tell whether a cancel spares a step that a migration has taken back in this turn, and enters again."""
    former = turn.withdrawn.get(key)
    return former is not None and _is_shielded(turn, former)


def _is_shielded(turn: Turn, step: Step) -> bool:
    if turn.plan_of(step.key).places[step.key.block_id].is_shielded:
        return True
    return not block_of(turn, step.key).cancellable and step.state in _STARTED


def _polling(turn: Turn) -> list[Node]:
    return [node for node in turn.open_nodes() if node.memory.get("polling")]


def _parents(turn: Turn) -> list[Node]:
    """Give the blocks that wait for a child."""
    return [node for node in turn.open_nodes() if children.waits(node)]


def _cancel_polling(turn: Turn, node: Node) -> None:
    """End a composite that pauses; a for_each with items in progress ends when they have."""
    turn.drop_timer(node.key)
    if node.memory.get("open"):
        turn.put_node(replace(node, memory={**node.memory, "polling": False, "cancelled": True}))
        return
    turn.put_node(replace(node, state=NodeState.CANCELLED, completed_at=turn.now))
    turn.todo.append(Ended(node.key, NodeState.CANCELLED))


def withdraw_everything(turn: Turn) -> None:
    """Close all open work at once, without finishing anything: the instance's state was set by hand."""
    for step in turn.open_steps():
        cancel_step(turn, step)
    turn.todo.clear()
    for node in turn.open_nodes():
        if node.memory.get("polling"):
            turn.drop_timer(node.key)
        if children.waits(node):
            children.let_go(turn, node)
        turn.put_node(replace(node, state=NodeState.CANCELLED, completed_at=turn.now))
    drop_start_timer(turn)
