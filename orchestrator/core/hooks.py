"""Cleanup hooks: the root steps of `on_failure` and `on_cancel`, run once the state is final (sequences contract §14).

They run one after another as calls beside the flow, each with the next one's place in its memory, so that a crash
resumes where it was. Whatever a step of a hook ends in is swallowed; guards, delays, retries and gates do not apply.
"""

from collections.abc import Mapping
from typing import Any, Final

from orchestrator.core import asides
from orchestrator.core.asides import Answer, Kind
from orchestrator.core.interceptors import resolve
from orchestrator.core.model import ROOT_KEY, Step, StepError
from orchestrator.core.states import InstanceState, StepState
from orchestrator.core.steps import cannot_run, is_left_out, runs_in_process
from orchestrator.core.turn import Turn
from sequences import document

_HOOKS: Final[Mapping[InstanceState, str]] = {
    InstanceState.FAILED: "on_failure",
    InstanceState.CANCELLED: "on_cancel",
}


def begin(turn: Turn, state: InstanceState, error: StepError | None) -> None:
    """Start the hook of an instance that ends in a state, if it has one."""
    name = _HOOKS.get(state)
    if name is not None:
        _go_on(turn, name, 0, {"state": state.value, "error": error.to_json() if error is not None else {}})


def go_on(turn: Turn, call: Step) -> None:
    """Start the step behind one that has ended, unless the instance was reopened meanwhile or nobody waited."""
    memory = asides.about(call)
    if turn.instance.state.is_terminal and memory["round"] == turn.instance.round and runs_in_process(call.handler):
        _go_on(turn, memory["hook"], memory["index"] + 1, memory["seen"])


def _go_on(turn: Turn, name: str, index: int, seen: Mapping[str, Any]) -> None:
    """Call the steps from `index` on, up to the first one that must be waited for."""
    blocks = getattr(turn.plan.definition, name) or ()
    for position in range(index, len(blocks)):
        block = blocks[position]
        if isinstance(block, document.Step) and _call(turn, name, position, block, seen):
            return


def _call(turn: Turn, name: str, index: int, block: document.Step, seen: Mapping[str, Any]) -> bool:
    """Call one step of a hook; True if the next one has to wait for it."""
    compiled = turn.plan.beside(f"{name}:{index}", block.handler, block.params)
    roots = {"error": seen["error"], "instance": {"state": seen["state"]}}
    params = resolve(turn, ROOT_KEY, compiled, roots)
    if isinstance(params, Answer) or cannot_run(block.handler) is not None:
        return False
    asides.call(
        turn,
        block.id,
        block.handler,
        params,
        kind=Kind.HOOK,
        queue=block.queue_name,
        hook=name,
        index=index,
        seen=seen,
        round=turn.instance.round,
    )
    return runs_in_process(block.handler) and not is_left_out(turn, block.handler)


def drop(turn: Turn) -> None:
    """Forget what hooks of a former end have not begun yet: the instance goes on."""
    definition = turn.plan.definition
    if not definition.on_failure and not definition.on_cancel:
        return
    for call in turn.open_asides():
        if asides.about(call)["kind"] == Kind.HOOK and call.state is not StepState.CLAIMED:
            turn.remove_step(call)
