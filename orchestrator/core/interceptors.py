"""Interceptors: handlers called around steps, at signals and at the end of an instance (sequences contract §14).

Each call leaves a row with its resolved params, which gains the handler's result when it comes; nothing waits for that.
One interceptor can do more: the result of `after_step` may replace the step's output before it is stored. Where its
handler could do so and somebody is there to run it, the step stands `intercepted` with its output on its row until the
call has ended, for 30 seconds at the most.

A step keeps in its memory: `announced` (before_step has been called), and while it is intercepted `call` (key of the
call it waits for) and `merges` (see `Completed`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.core import asides
from orchestrator.core.asides import LONGEST, Answer, Kind
from orchestrator.core.events import (
    CancelRequested,
    ContextUpdated,
    Event,
    PauseRequested,
    ResumeRequested,
    SignalReceived,
)
from orchestrator.core.inputs import InputError, prepare
from orchestrator.core.model import ROOT_KEY, NodeKey, Step, StepError
from orchestrator.core.plan import BesideParams
from orchestrator.core.slice import ABSENT
from orchestrator.core.states import Activity, InstanceState, StepState
from orchestrator.core.steps import block_of, cannot_run, is_left_out
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace
from sequences.document import Interceptor
from sequences.durations import after
from sequences.handlers import is_builtin, is_endpoint
from sequences.signals import Control, Custom, SignalType, written_type
from sequences.templates import TemplateError

ROW = "_interceptor:"
_BUILTINS_WITH_ANY_OUTPUT: Final = frozenset({"transform", "llm_call"})
"""Built-in handlers that can give a member `output`; the members of all others are fixed."""


# -- around steps ----------------------------------------------------------------------------------------------------


def announce(turn: Turn) -> None:
    """Call before_step for each step that this turn lets a worker have for the first time."""
    hook = turn.plan.interceptors.before_step
    if hook is None:
        return
    for _, step in turn.steps_touched():
        if step is not None and step.state is StepState.READY and (told := announced(turn, step)) is not step:
            turn.put_step(told)


def announced(turn: Turn, step: Step) -> Step:
    """Call before_step for a step, unless that was done; gives the step as it knows of it."""
    hook = turn.plan.interceptors.before_step
    if hook is None or (step.memory or {}).get("announced"):
        return step
    seen = {"step": _step_seen(turn, step)}
    _call(turn, f"before:{step.key.block_id}", "before_step", hook, step.key, seen)
    return replace(step, memory={**(step.memory or {}), "announced": True})


def hold_back(turn: Turn, step: Step, output: Any, *, merges: bool) -> bool:
    """Keep an output back until after_step has seen it; False if it need not wait."""
    hook = turn.plan.interceptors.after_step
    if hook is None or not _may_replace(turn, hook.handler):
        return False
    resolved = _resolved(turn, "after_step", hook, step.key, {"step": _step_seen(turn, step, output=output)})
    if isinstance(resolved, Answer):
        return False
    label = f"{ROW}after:{step.key.block_id}"
    key = asides.call(turn, label, hook.handler, resolved, kind=Kind.AFTER, step=asides.to_json(step.key))
    turn.put_step(
        replace(
            step,
            state=StepState.INTERCEPTED,
            activity=Activity.RUNNING,
            wake_at=after(turn.now, LONGEST),
            deadline_at=None,
            expires_at=None,
            token=None,
            worker_id=None,
            worker_name=None,
            slot=None,
            claimed_at=None,
            output=output,
            memory={**(step.memory or {}), "call": asides.to_json(key), "merges": merges},
        )
    )
    return True


def _may_replace(turn: Turn, handler: str) -> bool:
    """Tell whether a handler can give an output in another's stead, and is run by somebody we know."""
    if is_builtin(handler):
        return handler in _BUILTINS_WITH_ANY_OUTPUT
    if is_left_out(turn, handler):
        return False
    return cannot_run(handler) is None and (is_endpoint(handler) or handler in turn.facts.known_handlers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """The call of after_step that an output was held back for, and how it ended."""

    key: NodeKey
    answer: Answer


def stored(turn: Turn, step: Step, output: Any, called: Called | None) -> None:
    """Leave the row of after_step behind the output of a step, calling it now if that was not done before."""
    hook = turn.plan.interceptors.after_step
    if hook is None:
        return
    seen = {"step": _step_seen(turn, step, output=output)}
    if called is None:
        _call(turn, f"after:{step.key.block_id}", "after_step", hook, step.key, seen)
        return
    resolved = _resolved(turn, "after_step", hook, step.key, seen)
    members = {} if isinstance(resolved, Answer) else _members(resolved)
    turn.add_row_beside(called.key, {**members, **called.answer.shown()})


# -- at signals and at the end ---------------------------------------------------------------------------------------


def signalled(turn: Turn, event: Event) -> None:
    """Call on_signal for an event that is a signal."""
    hook = turn.plan.interceptors.on_signal
    found = _signal_of(event) if hook is not None else None
    if hook is None or found is None:
        return
    kind, payload = written_type(found[0]), found[1]
    mark = {"_signal": {"signal_type": kind, "payload": payload}}
    seen = {"signal": {"type": kind, "payload": payload}}
    _call(turn, "on_signal", "on_signal", hook, ROOT_KEY, seen, mark)


def _signal_of(event: Event) -> tuple[SignalType, Any] | None:
    match event:
        case PauseRequested(payload=payload):
            return Control.PAUSE, payload
        case ResumeRequested(payload=payload):
            return Control.RESUME, payload
        case CancelRequested(payload=payload):
            return Control.CANCEL, payload
        case ContextUpdated(payload=payload):
            return Control.UPDATE_CONTEXT, payload
        case SignalReceived(name=name, payload=payload):
            return Custom(name), payload
        case _:
            return None


def ended(turn: Turn, state: InstanceState, error: StepError | None) -> None:
    """Call on_complete or on_failure for an instance that ends in a state."""
    name = {InstanceState.COMPLETED: "on_complete", InstanceState.FAILED: "on_failure"}.get(state)
    hook = getattr(turn.plan.interceptors, name) if name is not None else None
    if name is None or hook is None:
        return
    seen: dict[str, Any] = {"instance": {"state": state.value}}
    if error is not None:
        seen["error"] = error.to_json()
        seen["step"] = {"id": error.step_id, "error": error.to_json()}
    _call(turn, name, name, hook, ROOT_KEY, seen)


# -- the call --------------------------------------------------------------------------------------------------------


def _call(
    turn: Turn,
    label: str,
    name: str,
    hook: Interceptor,
    key: NodeKey,
    seen: Mapping[str, Any],
    mark: Mapping[str, Any] | None = None,
) -> None:
    """Leave the row of an interceptor and have its handler called; a wrong template or handler is noted in the row."""
    label = ROW + label
    resolved = _resolved(turn, name, hook, key, seen)
    reason = cannot_run(hook.handler)
    failure = resolved if isinstance(resolved, Answer) else Answer(error=reason) if reason is not None else None
    if failure is not None:
        row_key = turn.key_beside(label)
        members = {} if isinstance(resolved, Answer) else _members(resolved)
    else:
        row_key = asides.call(turn, label, hook.handler, resolved, kind=Kind.ROW)
        members = _members(resolved)
    turn.add_row_beside(row_key, {**members, **(mark or {}), **(failure.shown() if failure is not None else {})})


def _members(params: Any) -> dict[str, Any]:
    return params if isinstance(params, dict) else {} if params is None else {"params": params}


def _resolved(turn: Turn, name: str, hook: Interceptor, key: NodeKey, seen: Mapping[str, Any]) -> Any:
    """Resolve the params of an interceptor; an Answer with the error when a template is wrong."""
    return resolve(turn, key, turn.plan.beside(name, hook.handler, hook.params), seen)


def resolve(turn: Turn, key: NodeKey, compiled: BesideParams, seen: Mapping[str, Any]) -> Any:
    """Resolve params over the roots of this place beside the usual ones; an Answer when a template is wrong.

    Args:
        seen: What is known of `step`, `signal`, `instance` and `error`; a root that means nothing here is empty.
    """
    roots: dict[str, Any] = {"step": {}, "signal": {}, "error": {}, **seen}
    if compiled.reads("step", "params") and "handler" in roots["step"]:
        roots["step"] = {**roots["step"], "params": _params_of(turn, key)}
    instance = {"id": str(turn.instance.id), "state": turn.instance.state.value, **roots.get("instance", {})}
    if compiled.reads("instance", "metadata"):
        instance["metadata"] = turn.slice.profile_metadata()
    scope = turn.scope(key, compiled.references, variables={**roots, "instance": instance})
    try:
        return compiled.template.render(scope)
    except TemplateError as error:
        return Answer(error=f"template error: {error}")


def _step_seen(turn: Turn, step: Step, *, output: Any = ABSENT) -> dict[str, Any]:
    handler = block_of(turn, step.key).handler
    return {
        "id": step.key.block_id,
        "handler": handler,
        "params": None,
        "output": None if output is ABSENT else output,
        "error": None,
        "attempt": step.attempt,
    }


def _params_of(turn: Turn, key: NodeKey) -> Any:
    try:
        return prepare(turn, key).params
    except InputError:
        return None
