"""Builders of documents for the tests of the language."""

from collections.abc import Callable
from typing import Any


def step(block_id: str = "s", handler: str = "noop", **fields: Any) -> dict[str, Any]:
    return {"type": "step", "id": block_id, "handler": handler, **fields}


def block(block_type: str, block_id: str = "b", **fields: Any) -> dict[str, Any]:
    return {"type": block_type, "id": block_id, **fields}


def definition(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "id": "00000000-0000-4000-8000-000000000001",
        "tenant_id": "demo",
        "namespace": "default",
        "name": "demo",
        "version": 1,
        "created_at": "2026-01-01T00:00:00Z",
        "blocks": list(blocks),
        **fields,
    }


AROUND: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "parallel": lambda name, inner: {"branches": [[inner]]},
    "race": lambda name, inner: {"branches": [[inner]]},
    "loop": lambda name, inner: {"condition": "true", "max_iterations": 1, "body": [inner]},
    "for_each": lambda name, inner: {"collection": "items", "body": [inner]},
    "router": lambda name, inner: {"routes": [{"condition": "true", "blocks": [inner]}]},
    "try_catch": lambda name, inner: {"try_block": [inner], "catch_block": []},
    "a_b_split": lambda name, inner: {
        "variants": [{"name": "A", "weight": 1, "blocks": [inner]}, {"name": "B", "weight": 0, "blocks": []}]
    },
    "cancellation_scope": lambda name, inner: {"blocks": [inner]},
    "saga": lambda name, inner: {"steps": [{"id": f"{name}_step", "action": inner}]},
}
"""Every block that can hold another: the members that put one inside."""


def nested(levels: int, kind: str = "cancellation_scope", leaf: dict[str, Any] | None = None) -> dict[str, Any]:
    """Blocks of one kind inside each other; the innermost level is a step."""
    inner = leaf or step("leaf")
    for level in range(levels - 1):
        inner = block(kind, f"level_{level}", **AROUND[kind](f"level_{level}", inner))
    return inner


EVERY_BLOCK: tuple[dict[str, Any], ...] = (
    step(
        "full",
        "work",
        params={"a": [1, None, "{{ data.x }}"]},
        when="data.x > 1",
        delay={
            "duration": 1000,
            "business_days_only": True,
            "jitter": 5,
            "holidays": ["2026-12-25"],
            "count": "business",
        },
        send_window={"start_hour": 8, "end_hour": 17, "days": [0, 4]},
        rate_limit_key="k",
        rate_limit={"max": 3, "window_seconds": 60},
        resource_pool="pool",
        resource_affinity=True,
        retry={
            "max_attempts": 3,
            "initial_backoff": 10,
            "max_backoff": 20,
            "retry_if": "_error.details.status == 500",
            "non_retryable_codes": ["a", "a"],
            "retryable_errors": ["timeout"],
            "jitter": 3,
        },
        timeout=1.5,
        deadline="15m",
        on_deadline_breach={"handler": "log", "params": {"x": 1}},
        cancellable=False,
        wait_for_input={
            "prompt": "?",
            "timeout": 5000,
            "choices": [{"label": "A", "value": "a"}],
            "allow_comment": True,
        },
        queue_name="gpu",
        context_access={"data": {"fields": ["x"]}, "config": "none", "audit": True, "runtime": "all"},
        fallback_handler="log",
        cache_key="c:{{ data.x }}",
        output_schema={"type": "object"},
        compensation={"handler": "undo", "depends_on": ["other"]},
    ),
    step("open", wait_for_signal=True),
    step("named", wait_for_signal={"name": "go", "timeout": "2h"}),
    block("parallel", "par", branches=[[step("p1")], []], failure_policy="fail_fast"),
    block("race", "race", branches=[[step("r1")], [step("r2")]], semantics="first_to_succeed"),
    block("loop", "loop", condition="true", body=[step("l1")], break_on="x", poll_interval=5, retain_iterations=2),
    block("for_each", "each", collection="items", body=[step("f1")], concurrency=3),
    block("router", "router", routes=[{"condition": "x", "blocks": [step("o1")]}], default=[]),
    block("try_catch", "try", try_block=[step("t1")], catch_block=[], finally_block=[step("t2")]),
    block("sub_sequence", "sub", sequence_name="other", version=2, input={"a": 1}),
    block("a_b_split", "split", variants=[{"name": n, "weight": 1, "blocks": [step(f"v{n}")]} for n in "AB"]),
    block("cancellation_scope", "scope", blocks=[step("c1")]),
    block(
        "saga",
        "saga",
        steps=[{"id": "g1", "action": step("g2"), "compensation": step("g3")}, {"id": "g4", "action": step("g5")}],
    ),
)
