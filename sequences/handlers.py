"""Names of handlers: which are built in, which are endpoints, which are outside this product (§11, §4)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

RESERVED_HANDLERS: Final = frozenset(
    {"embed", "memory_store", "memory_search", "memory_delete", "blob_put", "blob_get", "wait_for_event"}
)
"""Built-in names that fail permanently for now."""

BUILTIN_HANDLERS: Final = RESERVED_HANDLERS | {
    "noop",
    "log",
    "sleep",
    "fail",
    "http_request",
    "llm_call",
    "tool_call",
    "mcp_call",
    "agent",
    "human_review",
    "self_modify",
    "emit_event",
    "send_signal",
    "query_instance",
    "set_state",
    "get_state",
    "delete_state",
    "merge_state",
    "transform",
    "assert",
    "save_checkpoint",
    "load_checkpoint",
}

REQUIRED_PARAMS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "http_request": ("url",),
        "tool_call": ("url",),
        "set_state": ("key", "value"),
        "get_state": ("key",),
        "delete_state": ("key",),
        "merge_state": ("values",),
        "assert": ("condition",),
        "self_modify": ("blocks",),
        "emit_event": ("trigger_slug",),
        "send_signal": ("instance_id", "signal_type"),
        "query_instance": ("instance_id",),
        "save_checkpoint": ("data",),
    }
)
"""Params without which a built-in fails."""

CALLING_HANDLERS: Final = frozenset({"http_request", "llm_call", "tool_call", "mcp_call", "agent"})
"""Built-ins whose end depends on somebody outside."""

_ENDPOINTS: Final = ("http://", "https://", "grpc://", "grpcs://")
_UNSUPPORTED: Final = ("ap://", "wasm://")


def is_builtin(name: str) -> bool:
    """Tell whether the engine has a handler of this name, reserved ones included."""
    return name in BUILTIN_HANDLERS


def is_endpoint(name: str) -> bool:
    """Tell whether the name is the address of a service that runs the step."""
    return name.startswith(_ENDPOINTS)


def is_unsupported(name: str) -> bool:
    """Tell whether the name is of a kind outside this product: such a step fails and is never queued."""
    return name.startswith(_UNSUPPORTED)


def has_breaker(name: str) -> bool:
    """Tell whether failures of a handler say something about whoever it calls (§13.6).

    >>> [has_breaker(name) for name in ("charge", "http_request", "https://shop/charge", "transform", "ap://slack")]
    [True, True, True, False, False]
    """
    return name in CALLING_HANDLERS or not (is_builtin(name) or is_unsupported(name))
