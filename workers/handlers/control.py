"""Built-in handlers that change how their own flow goes on. Source: sequence language contract §11, §9.10."""

from typing import Any

import orjson

from orchestrator.catalogue import check_blocks
from orchestrator.core.outcomes import BlocksAdded, Completed, Failed, Outcome
from orchestrator.errors import InvalidArgument
from workers.failures import failed
from workers.handlers.params import members, missing, wrong_input


def self_modify(params: Any) -> Outcome:
    """Let blocks join the root list of the flow; they may come as an array or as JSON text, as models write it."""
    given = members(params)
    blocks = _array(given.get("blocks"))
    if blocks is None:
        return missing("blocks", "must be a JSON array")
    position = _position(given.get("position"))
    if isinstance(position, Failed):
        return position
    try:
        checked = check_blocks(blocks)
    except InvalidArgument as error:
        return failed(str(error), retryable=False)
    output = {"_self_modify": True, "blocks": blocks, "position": position, "injected_count": len(checked)}
    return Completed(output=output, effects=(BlocksAdded(blocks=checked, position=position),))


def _array(value: Any) -> list[Any] | None:
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    return value if isinstance(value, list) else None


def _position(value: Any) -> int | Failed | None:
    """Read a position; templates and expressions may give a float."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 0:
        return wrong_input("position must be a whole number from 0")
    return int(value)
