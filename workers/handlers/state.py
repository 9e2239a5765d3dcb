"""Built-in handlers of the key-value state, of the session's data and of checkpoints. Source: contract §11, §8.4, §8.6.

They write nothing themselves: what they want written is an effect, committed together with their output.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any, Final

from orchestrator.core.ids import IdMaker
from orchestrator.core.outcomes import (
    CheckpointKept,
    Completed,
    Effect,
    Failed,
    Outcome,
    SharedDeleted,
    SharedWritten,
    StateDeleted,
    StateWritten,
)
from orchestrator.core.sections import rfc3339
from workers.context import StepContext
from workers.handlers.params import is_text, members, missing, wrong_input

_new_id: Final = IdMaker(SystemRandom())


def set_state(params: Any) -> Outcome:
    """Set one key; an explicit null is a value."""
    return _with_key(params, _set)


def get_state(ctx: StepContext, params: Any) -> Outcome:
    """Read one key; absent is null."""

    def read(key: str, given: dict[str, Any]) -> Outcome:
        if not _is_shared(given):
            return Completed(output={"key": key, "value": ctx.state.get(key)})
        shared = ctx.context.get("session")
        if shared is None:
            return wrong_input("the instance has no session")
        return Completed(output={"key": key, "value": shared.get(key) if isinstance(shared, Mapping) else None})

    return _with_key(params, read)


def delete_state(params: Any) -> Outcome:
    """Remove one key; an absent key is fine."""

    def delete(key: str, given: dict[str, Any]) -> Outcome:
        effect = SharedDeleted(key=key) if _is_shared(given) else StateDeleted(key=key)
        return Completed(output={"key": key, "deleted": True}, effects=(effect,))

    return _with_key(params, delete)


def merge_state(params: Any) -> Outcome:
    """Set several keys at once."""
    given = members(params)
    values = given.get("values")
    if not isinstance(values, dict):
        return missing("values", "must be an object")
    if "" in values:
        return wrong_input("state keys must not be empty")
    effects = tuple(_written(given, key, value) for key, value in values.items())
    return wrong_scope(given) or Completed(output={"merged_keys": sorted(values)}, effects=effects)


def save_checkpoint(params: Any) -> Outcome:
    """Keep `data` as a checkpoint of the instance; with `keep`, only that many of its checkpoints remain."""
    given = members(params)
    if "data" not in given:
        return missing("data")
    keep = given.get("keep")
    if keep is not None and (not isinstance(keep, int | float) or isinstance(keep, bool) or keep < 0 or keep % 1):
        return wrong_input("keep must be a whole number, not below 0")
    checkpoint_id = _new_id(datetime.fromtimestamp(time.time(), UTC))
    effect = CheckpointKept(id=checkpoint_id, value=given["data"], keep=None if keep is None else int(keep))
    return Completed(output={"checkpoint_id": str(checkpoint_id)}, effects=(effect,))


def load_checkpoint(ctx: StepContext, params: Any) -> Outcome:
    """Read the newest checkpoint of the instance."""
    del params
    found = ctx.latest_checkpoint()
    if found is None:
        return Completed(output={"found": False, "data": None, "created_at": None})
    data, created_at = found
    return Completed(output={"found": True, "data": data, "created_at": rfc3339(created_at)})


def wrong_scope(given: dict[str, Any]) -> Failed | None:
    """Return the failure for a scope that does not exist; None for the instance's own state and the session's."""
    scope = given.get("scope")
    if scope is None or scope in ("instance", "session"):
        return None
    return wrong_input('scope must be "instance" or "session"')


def _is_shared(given: dict[str, Any]) -> bool:
    return given.get("scope") == "session"


def _written(given: dict[str, Any], key: str, value: Any) -> Effect:
    return SharedWritten(path=(key,), value=value) if _is_shared(given) else StateWritten(key=key, value=value)


def _with_key(params: Any, act: Callable[[str, dict[str, Any]], Outcome]) -> Outcome:
    given = members(params)
    key = given.get("key")
    if not is_text(key):
        return missing("key", "must be a non-empty string") if "key" in given else missing("key")
    return wrong_scope(given) or act(key, given)


def _set(key: str, given: dict[str, Any]) -> Outcome:
    if "value" not in given:
        return missing("value")
    value = given["value"]
    return Completed(output={"key": key, "value": value}, effects=(_written(given, key, value),))
