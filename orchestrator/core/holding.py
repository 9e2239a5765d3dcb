"""Keeping steps back while an instance is held, and letting them go (sequences contract §9.4)."""

from orchestrator.core import children, gates, windows
from orchestrator.core.model import Step
from orchestrator.core.states import StepState
from orchestrator.core.steps import block_of
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace


def hold(turn: Turn, step: Step) -> None:
    """Take a step from whoever has it and keep it back; its handler starts anew when it is let go."""
    turn.put_step(
        replace(
            step,
            id=turn.new_id(),
            state=StepState.HELD,
            wake_at=None,
            expires_at=None,
            token=None,
            worker_id=None,
            worker_name=None,
            slot=None,
            claimed_at=None,
            output=None,
        )
    )


def release_held(turn: Turn) -> None:
    """Let go of everything that is kept back: a step at its gate if that never opened, else to the workers."""
    children.start_held(turn)
    release_loops(turn)
    for step in turn.open_steps():
        if step.state is not StepState.HELD:
            continue
        if step.ready_at is None and gates.comes_first(block_of(turn, step.key)):
            gates.open_gate(turn, step)
        else:
            windows.make_ready_within(turn, step)


def release_loops(turn: Turn) -> None:
    """Let every loop go on whose next iteration came due while the instance was held."""
    for node in turn.open_nodes():
        if node.memory.get("held"):
            turn.put_timer(node.key, turn.now)
            turn.put_node(replace(node, memory={**node.memory, "held": False, "polling": True}))
