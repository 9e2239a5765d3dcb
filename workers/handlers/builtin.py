"""The registry of all handlers that come with the engine."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from orchestrator.egress import Egress
from sequences.handlers import BUILTIN_HANDLERS
from workers.handlers import basic, control, data, flows, state
from workers.handlers.requests_out import http_request
from workers.handlers.reserved import not_built_yet
from workers.handlers.review import human_review
from workers.registry import Registry

INSTANT_HANDLERS: Final[Mapping[str, Callable[..., Any]]] = {
    "noop": basic.noop,
    "log": basic.log,
    "sleep": basic.sleep,
    "fail": basic.fail,
    "set_state": state.set_state,
    "get_state": state.get_state,
    "merge_state": state.merge_state,
    "delete_state": state.delete_state,
    "save_checkpoint": state.save_checkpoint,
    "load_checkpoint": state.load_checkpoint,
    "transform": data.transform,
    "assert": data.assert_condition,
    "self_modify": control.self_modify,
}
"""Built-ins that never block, and so may run in the process that found their step ready."""

EFFECTLESS_HANDLERS: Final = frozenset(
    {"noop", "sleep", "fail", "set_state", "merge_state", "delete_state", "transform", "assert"}
)
"""Instant ones that look at nothing but their params and the scope, and leave nothing but their outcome."""


def builtin_registry(*, egress: Egress | None = None) -> Registry:
    """Return a registry with every built-in name, those that are not built yet included.

    Args:
        egress: The way out for requests; None for one that refuses internal addresses.
    """
    registry = Registry()
    for name, function in INSTANT_HANDLERS.items():
        registry.register(name, function, merge_output=False, instant=True, effectless=name in EFFECTLESS_HANDLERS)
    egress = egress or Egress()
    registry.register("http_request", http_request(egress), merge_output=False)
    registry.register("human_review", human_review(egress), merge_output=False)
    registry.register("send_signal", flows.send_signal, merge_output=False)
    registry.register("emit_event", flows.emit_event, merge_output=False)
    registry.register("query_instance", flows.query_instance, merge_output=False)
    for name in sorted(BUILTIN_HANDLERS - set(registry.names())):
        registry.register(name, not_built_yet(name), merge_output=False, instant=True)
    return registry
