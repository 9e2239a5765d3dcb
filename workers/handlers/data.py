"""Built-in handlers that read the flow's data through expressions or write to it. Source: contract §11, §7, §8.1."""

from typing import Any, Final

import orjson

from orchestrator.core.outcomes import Completed, DataWritten, Effect, Failed, Outcome, SharedWritten, StateWritten
from sequences.expressions import compile_expression
from sequences.json_values import truthy
from sequences.scope import plain
from workers.context import StepContext
from workers.failures import failed
from workers.handlers.params import members, missing, wrong_input
from workers.handlers.state import wrong_scope

_TARGETS: Final = ("context.data.", "data.", "state.", "session.")


def assert_condition(ctx: StepContext, params: Any) -> Outcome:
    """Fail for good unless the condition holds; evaluated leniently, so what cannot be read does not hold."""
    given = members(params)
    if given.get("condition") is None:
        return missing("condition")
    condition = given["condition"]
    if truthy(_evaluated(condition, ctx)):
        return Completed(output={"condition": condition, "passed": True})
    message = f"assert: {_shown(given.get('message', 'assertion failed'))} (condition: {_shown(condition)})"
    return failed(message, retryable=False, details={"condition": condition, "passed": False})


def transform(ctx: StepContext, params: Any) -> Outcome:
    """Give the resolved params back, or write `value` (or what `expression` gives) to `target`.

    An object with a member `target` that is no writable place, or without a value for it, is an ordinary value.
    """
    given = members(params)
    target = given.get("target")
    if not isinstance(target, str) or not target.startswith(_TARGETS) or not given.keys() & {"value", "expression"}:
        return Completed(output=params)
    value = given["value"] if "value" in given else plain(_evaluated(given["expression"], ctx))
    effect = _effect(target, value, is_shared=given.get("scope") == "session")
    if isinstance(effect, Failed):
        return effect
    return wrong_scope(given) or Completed(output={"target": target, "value": value}, effects=(effect,))


def _evaluated(expression: Any, ctx: StepContext) -> Any:
    """Evaluate text; a template that stood in its place has already become a value."""
    return compile_expression(expression).evaluate(ctx.scope) if isinstance(expression, str) else expression


def _effect(target: str, value: Any, *, is_shared: bool) -> Effect | Failed:
    """Return the write that a target names: a path in `context.data` or in the session's data, or one key of a state.

    Args:
        is_shared: Whether a state is meant to be the session's: `scope: "session"`.
    """
    root, _, rest = target.removeprefix("context.").partition(".")
    keys = tuple(rest.split("."))
    if "" in keys:
        return wrong_input(f"target {target!r} has an empty key")
    if root == "data":
        return DataWritten(path=keys, value=value)
    if root == "session":
        return SharedWritten(path=keys, value=value)
    if len(keys) > 1:
        return wrong_input(f"target {target!r}: a state target is one key, without dots")
    return SharedWritten(path=keys, value=value) if is_shared else StateWritten(key=rest, value=value)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
