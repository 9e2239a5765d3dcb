"""What those outside are told of an instance: that it has ended, or takes too long (contract, api §16).

A dry run tells nobody: its ends are not those of real flows, and nothing in an event would say so.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.core.events import AttemptFinished, Event
from orchestrator.core.states import InstanceState
from orchestrator.core.turn import Turn

COMPLETED, FAILED, SLA_BREACHED = "instance.completed", "instance.failed", "instance.sla_breached"


def ended(turn: Turn, state: InstanceState, event: Event) -> None:
    """Tell of the end of an instance; one that was cancelled ends silently."""
    if turn.instance.dry_run:
        return
    if state is InstanceState.COMPLETED:
        turn.tell_outside(COMPLETED, {})
    elif state is InstanceState.FAILED:
        turn.tell_outside(FAILED, _failure(turn, event))


def sla_breached(turn: Turn, details: Mapping[str, Any]) -> None:
    """Tell of a run time that is too long."""
    if not turn.instance.dry_run:
        turn.tell_outside(SLA_BREACHED, {"instance_id": str(turn.instance.id), **details})


def _failure(turn: Turn, event: Event) -> dict[str, Any]:
    error = turn.ending.error if turn.ending is not None else None
    if error is None:
        return {"error": "the instance has failed"}
    told: dict[str, Any] = {"error": error.message, "block_id": error.step_id}
    if isinstance(event, AttemptFinished) and event.claim.key.block_id == error.step_id:
        told["attempts"] = event.claim.attempt + 1
    return told
