"""Built-in handlers of the key-value state. Source: sequence language contract §11, §8.4.

They write nothing themselves: what they want written is an effect, committed together with their output.
"""

from collections.abc import Callable
from typing import Any

from orchestrator.core.outcomes import Completed, Failed, Outcome, StateDeleted, StateWritten
from workers.context import StepContext
from workers.handlers.params import is_text, members, missing, wrong_input


def set_state(params: Any) -> Outcome:
    """Set one key; an explicit null is a value."""
    return _with_key(params, _set)


def get_state(ctx: StepContext, params: Any) -> Outcome:
    """Read one key; absent is null."""
    return _with_key(params, lambda key, _: Completed(output={"key": key, "value": ctx.state.get(key)}))


def delete_state(params: Any) -> Outcome:
    """Remove one key; an absent key is fine."""
    return _with_key(
        params,
        lambda key, _: Completed(output={"key": key, "deleted": True}, effects=(StateDeleted(key=key),)),
    )


def merge_state(params: Any) -> Outcome:
    """Set several keys at once."""
    given = members(params)
    values = given.get("values")
    if not isinstance(values, dict):
        return missing("values", "must be an object")
    if "" in values:
        return wrong_input("state keys must not be empty")
    effects = tuple(StateWritten(key=key, value=value) for key, value in values.items())
    return refuse_session_scope(given) or Completed(output={"merged_keys": sorted(values)}, effects=effects)


def refuse_session_scope(given: dict[str, Any]) -> Failed | None:
    """Return the failure for `scope: "session"` and for scopes that do not exist; None for the instance's own state."""
    scope = given.get("scope")
    if scope == "session":
        return wrong_input('scope "session" is not built yet')
    if scope is not None and scope != "instance":
        return wrong_input('scope must be "instance" or "session"')
    return None


def _with_key(params: Any, act: Callable[[str, dict[str, Any]], Outcome]) -> Outcome:
    given = members(params)
    key = given.get("key")
    if not is_text(key):
        return missing("key", "must be a non-empty string") if "key" in given else missing("key")
    return refuse_session_scope(given) or act(key, given)


def _set(key: str, given: dict[str, Any]) -> Outcome:
    if "value" not in given:
        return missing("value")
    value = given["value"]
    return Completed(output={"key": key, "value": value}, effects=(StateWritten(key=key, value=value),))
