"""What happens to a step whose worker has died (RELIABILITY A7), or does not get round to it."""

from orchestrator.core.control import park
from orchestrator.core.model import Step
from orchestrator.core.steps import make_ready
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace


def lose(turn: Turn, step: Step, reason: str) -> None:
    """Give the attempt to another worker; after too many deaths park the instance as poisoned.

    The attempt number stays: nobody knows whether the handler ran. What is counted is the loss. The step goes to
    the head of its queue, as if it had waited since its instance was made: it had its turn already.
    """
    turn.record_attempt(step, "lost", {"kind": "lost", "message": reason})
    again = replace(
        step,
        id=turn.new_id(),
        losses=step.losses + 1,
        worker_id=None,
        worker_name=None,
        slot=None,
        claimed_at=None,
    )
    if again.losses >= turn.facts.max_losses:
        message = f"step {step.key.block_id!r} lost its worker {again.losses} times: {reason}"
        park(turn, replace(again, token=None), message)
    else:
        make_ready(turn, again, ready_at=turn.instance.created_at, expires_at=step.expires_at)


def give_back(turn: Turn, step: Step) -> None:
    """Let another worker have a step that was claimed and not begun; it keeps its place in the queue."""
    unclaimed = replace(step, worker_id=None, worker_name=None, slot=None, claimed_at=None)
    make_ready(turn, unclaimed, ready_at=step.ready_at, expires_at=step.expires_at)
