"""Blocks, written short."""

from collections.abc import Sequence
from typing import Any


def step(block_id: str, handler: str = "noop", params: Any = None, **fields: Any) -> dict[str, Any]:
    """A step."""
    found = {"type": "step", "id": block_id, "handler": handler, **fields}
    return found if params is None else {**found, "params": params}


def say(block_id: str, message: Any, **fields: Any) -> dict[str, Any]:
    """A `log` step: its output shows what its template saw."""
    return step(block_id, "log", {"message": message}, **fields)


def ext(block_id: str, **fields: Any) -> dict[str, Any]:
    """A step of a handler that no world has: a test claims it, and says how it ends."""
    return step(block_id, "external", **fields)


def fail(block_id: str, message: str = "boom", *, retryable: bool = False, **fields: Any) -> dict[str, Any]:
    """A step that fails."""
    return step(block_id, "fail", {"message": message, "retryable": retryable}, **fields)


def gate(block_id: str, **fields: Any) -> dict[str, Any]:
    """A step behind a human gate."""
    return step(block_id, wait_for_input=fields.pop("gate", {}), **fields)


def parallel(block_id: str, *branches: Sequence[Any], **fields: Any) -> dict[str, Any]:
    return {"type": "parallel", "id": block_id, "branches": [list(branch) for branch in branches], **fields}


def loop(block_id: str, body: Sequence[Any], condition: str = "true", **fields: Any) -> dict[str, Any]:
    return {"type": "loop", "id": block_id, "condition": condition, "body": list(body), **fields}


def for_each(block_id: str, collection: str, body: Sequence[Any], **fields: Any) -> dict[str, Any]:
    return {"type": "for_each", "id": block_id, "collection": collection, "body": list(body), **fields}


def router(block_id: str, *routes: tuple[str, Sequence[Any]], default: Sequence[Any] | None = None) -> dict[str, Any]:
    found = {
        "type": "router",
        "id": block_id,
        "routes": [{"condition": condition, "blocks": list(blocks)} for condition, blocks in routes],
    }
    return found if default is None else {**found, "default": list(default)}


def sub_sequence(block_id: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "sub_sequence", "id": block_id, "sequence_name": name, **fields}


def try_catch(
    block_id: str, attempt: Sequence[Any], catch: Sequence[Any] = (), last: Sequence[Any] | None = None
) -> dict[str, Any]:
    found = {"type": "try_catch", "id": block_id, "try_block": list(attempt), "catch_block": list(catch)}
    return found if last is None else {**found, "finally_block": list(last)}


def race(block_id: str, *branches: Sequence[Any], **fields: Any) -> dict[str, Any]:
    return {"type": "race", "id": block_id, "branches": [list(branch) for branch in branches], **fields}


def split(block_id: str, *variants: tuple[str, int, Sequence[Any]]) -> dict[str, Any]:
    found = [{"name": name, "weight": weight, "blocks": list(blocks)} for name, weight, blocks in variants]
    return {"type": "a_b_split", "id": block_id, "variants": found}


def scope(block_id: str, *blocks: Any) -> dict[str, Any]:
    return {"type": "cancellation_scope", "id": block_id, "blocks": list(blocks)}


def saga(block_id: str, *steps: tuple[Any, Any]) -> dict[str, Any]:
    """A saga of (action, compensation) pairs; None for no compensation. Its steps are named after their number."""
    found = [
        {"id": f"{block_id}.{n}", "action": action, "compensation": undo} for n, (action, undo) in enumerate(steps)
    ]
    return {"type": "saga", "id": block_id, "steps": found}


RETRY = {"max_attempts": 3, "initial_backoff": 100, "max_backoff": 10_000}
"""A retry policy of three executions."""
