"""Calls beside the flow: handlers of interceptors, hooks, escalations and notices (sequences contract §14, §5.5, §5.8).

A call is an open step like any other: workers find, claim and report it in the same way, also when its instance has
ended. But it is no node. Its key lies beside the flow (`BESIDE`), its activity counts for nothing, its params were
resolved when it was decided and stand on its row, and no pause, cancel or time-out of the flow touches it. Its report
ends in `called.py`. It is not retried; a call whose worker died is given to another one.

    memory    kind, params; step (AFTER, NOTICE: key of the step it belongs to), hook, index, error (HOOK)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from orchestrator.core.model import Claim, NodeKey, Step, is_beside
from orchestrator.core.states import Activity, StepState
from orchestrator.core.steps import DEFAULT_QUEUE, cannot_run, is_left_out, runs_in_process
from orchestrator.core.turn import Turn
from sequences import document
from sequences.durations import after

LONGEST = timedelta(seconds=30)
"""How long one call may take, from its claim (contract §14)."""
SHELF_LIFE = timedelta(days=1)
"""How long a call waits for an external worker before it is dropped: nobody may serve its handler, ever."""
RESULT_REF = "__result__"
"""Marks the row that completes the row of an interceptor; the two are shown as one."""


class Kind(StrEnum):
    """What a call's end means."""

    PLAIN = "plain"
    ROW = "row"
    AFTER = "after"
    HOOK = "hook"
    NOTICE = "notice"


def call(
    turn: Turn,
    label: str,
    handler: str,
    params: Any,
    *,
    kind: Kind = Kind.PLAIN,
    queue: str | None = None,
    **about: Any,
) -> NodeKey:
    """Have a handler called; the params are resolved.

    A handler that no worker can ever run is not called; `cannot_run` says so beforehand to those who care. Nor does a
    dry run call one that has effects outside.

    Args:
        label: What the call goes by where a step has its block id: in tasks, in logs, in the history.
        about: What else the end of the call must know.
    """
    key = turn.key_beside(label)
    if cannot_run(handler) is not None or is_left_out(turn, handler):
        return key
    step = Step(
        key=key,
        id=turn.new_id(),
        state=StepState.READY,
        activity=Activity.ASIDE,
        handler=handler,
        queue=queue or DEFAULT_QUEUE,
        is_queue_named=queue is not None,
        tenant_id=turn.instance.tenant_id,
        priority=turn.instance.priority,
        timeout=LONGEST,
        entered_at=turn.now,
        ready_at=turn.now,
        wake_at=None if runs_in_process(handler) else after(turn.now, SHELF_LIFE),
        memory={"kind": kind.value, "params": params, **about},
    )
    turn.put_step(step)
    return key


def block_of_claim(turn: Turn, claim: Claim) -> document.Step:
    """Give the definition of a claimed step; a call beside the flow has the form of one for whoever runs it."""
    if is_beside(claim.key):
        return document.Step.model_construct(id=claim.key.block_id, handler=claim.handler, timeout=LONGEST)
    place = turn.plan_of(claim.key).places.get(claim.key.block_id)
    if place is None or not isinstance(place.block, document.Step):
        # It has ended, and its block is in no plan any more.
        return document.Step(id=claim.key.block_id, handler=claim.handler)
    return place.block


def about(step: Step) -> Mapping[str, Any]:
    """Give what is kept of a call."""
    return step.memory or {}


def to_json(key: NodeKey) -> list[Any]:
    """Write a key for a memory."""
    return [key.block_id, list(key.iteration)]


def from_json(written: Any) -> NodeKey:
    """Read a key from a memory."""
    return NodeKey(written[0], tuple(written[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a call ended: with a result, or with an error."""

    result: Any = None
    error: str | None = None

    def shown(self) -> dict[str, Any]:
        """Give the members that the row of an interceptor gains; a handler that returned nothing adds none."""
        if self.error is not None:
            return {"_error": self.error}
        return {} if self.result is None or self.result == {} else {"_result": self.result}
