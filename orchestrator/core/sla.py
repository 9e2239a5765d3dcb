"""Alerts for run times that are too long; the flow goes on (sequences contract §14, SLA).

An alert is a timer beside the flow, which counts for nothing. The row it leaves says that it was given: once for the
instance, and once for each step, however often a loop or a retry runs it.
"""

from datetime import datetime, timedelta
from typing import Any

from orchestrator.core import announcing
from orchestrator.core.model import BESIDE, NodeKey
from orchestrator.core.slice import ABSENT
from orchestrator.core.turn import Turn
from sequences.durations import after, to_milliseconds

EVENT = "sla_breached"
RUNTIME = NodeKey("_sla:runtime", (BESIDE,))
_STEP = "_sla:step:"


def _step_alarm(key: NodeKey) -> NodeKey:
    return NodeKey(_STEP + key.block_id, (BESIDE, *key.iteration))


def watch(turn: Turn, *, begins: bool) -> None:
    """Set and drop the alarms that follow from this turn.

    Args:
        begins: The instance was just made, or reopened.
    """
    sla = turn.plan.definition.sla
    if sla is None:
        return
    if sla.max_runtime is not None:
        if turn.ending is not None:
            turn.drop_alarm(RUNTIME)
        elif begins:
            turn.put_alarm(RUNTIME, after(turn.instance.created_at, sla.max_runtime))
    if sla.max_step_runtime is not None:
        _watch_steps(turn, sla.max_step_runtime)


def _watch_steps(turn: Turn, limit: timedelta) -> None:
    for key, step in turn.steps_touched():
        if step is None:
            turn.drop_alarm(_step_alarm(key))
        elif step.started_at == turn.now:
            turn.put_alarm(_step_alarm(key), after(turn.now, limit))


def alarm(turn: Turn, key: NodeKey) -> bool:
    """Give an alert whose moment has come; False if it was given before, or means nothing any more."""
    sla = turn.plan.definition.sla
    if sla is None or turn.row_beside(key.block_id) is not ABSENT:
        return False
    if key == RUNTIME:
        return sla.max_runtime is not None and _alert(
            turn, key, "max_runtime", sla.max_runtime, turn.instance.created_at
        )
    step = turn.step(NodeKey(key.block_id.removeprefix(_STEP), key.iteration[1:]))
    if step is None or step.started_at is None or sla.max_step_runtime is None:
        return False
    return _alert(turn, key, "max_step_runtime", sla.max_step_runtime, step.started_at, step_id=step.key.block_id)


def _alert(turn: Turn, key: NodeKey, kind: str, limit: timedelta, since: datetime, **about: Any) -> bool:
    if after(since, limit) > turn.now:
        return False
    times = {"limit_ms": to_milliseconds(limit), "elapsed_ms": to_milliseconds(turn.now - since)}
    details = {"type": kind, **times, **about}
    turn.add_row_beside(NodeKey(key.block_id, (BESIDE,)), details)
    turn.record_event(EVENT, about.get("step_id"), details)
    announcing.sla_breached(turn, details)
    turn.drop_alarm(key)
    return True
