"""What handlers do: the built-in ones that need nobody outside (§11). An outcome is a plain value."""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.model.reference.values import View, evaluate, truthy

IN_PROCESS = frozenset(
    {"noop", "log", "sleep", "fail", "set_state", "get_state", "delete_state", "merge_state", "transform", "assert"}
)
IN_PROCESS |= {"self_modify"}
"""Everything else is a task of an external worker."""


@dataclass(frozen=True)
class Done:
    """An output, and what it writes: `data` by path, `state` by key; a state value of `GONE` removes the key.

    `blocks`, if there are any, are injected at `position`.
    """

    output: Any
    data: tuple[tuple[tuple[str, ...], Any], ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    blocks: tuple[Any, ...] = ()
    position: int | None = None


@dataclass(frozen=True)
class Broken:
    """A failure; `kind` is the class that `retryable_errors` may name."""

    message: str
    retryable: bool = False
    details: Any = None
    kind: str = ""


@dataclass(frozen=True)
class Asleep:
    """Completed later, with this output."""

    milliseconds: int
    output: Any


Outcome = Done | Broken | Asleep
GONE = object()


def run(handler: str, params: Any, view: View) -> Outcome:
    """Run a built-in handler with its resolved params."""
    given = params if isinstance(params, dict) else {}
    match handler:
        case "noop":
            return Done({})
        case "log":
            return Done({"message": given.get("message", "no message")})
        case "sleep":
            milliseconds = given.get("duration_ms", 100)
            return Asleep(milliseconds, {"slept_ms": milliseconds})
        case "fail":
            return Broken(given.get("message", "forced failure"), given.get("retryable") is True)
        case "self_modify":
            blocks = tuple(given["blocks"])
            position = given.get("position")
            output = {"_self_modify": True, "blocks": list(blocks), "position": position}
            return Done({**output, "injected_count": len(blocks)}, blocks=blocks, position=position)
        case "assert":
            return _assert(given, view)
        case "transform":
            return _transform(params, given, view)
        case _:
            return _state(handler, given, view)


def _assert(given: dict[str, Any], view: View) -> Outcome:
    condition = given["condition"]
    if truthy(evaluate(condition, view)):
        return Done({"condition": condition, "passed": True})
    message = f"assert: {given.get('message', 'assertion failed')} (condition: {condition})"
    return Broken(message, details={"condition": condition, "passed": False})


def _transform(params: Any, given: dict[str, Any], view: View) -> Outcome:
    if "target" not in given:
        return Done(params)
    value = given["value"] if "value" in given else evaluate(given["expression"], view)
    root, _, path = given["target"].removeprefix("context.").partition(".")
    output = {"target": given["target"], "value": value}
    if root == "state":
        return Done(output, state={path: value})
    return Done(output, data=((tuple(path.split(".")), value),))


def _state(handler: str, given: dict[str, Any], view: View) -> Outcome:
    state = view.sections["state"]
    if handler == "merge_state":
        return Done({"merged_keys": sorted(given["values"])}, state=dict(given["values"]))
    key = given["key"]
    if handler == "set_state":
        return Done({"key": key, "value": given["value"]}, state={key: given["value"]})
    if handler == "get_state":
        return Done({"key": key, "value": state.get(key)})
    return Done({"key": key, "deleted": True}, state={key: GONE})


def shown(value: Any) -> str:
    """Write a value for a message."""
    return value if isinstance(value, str) else json.dumps(value)
