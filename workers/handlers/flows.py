"""Built-in handlers that have to do with other instances: send_signal, query_instance, emit_event (contract §11).

A signal is a letter that is written together with the handler's output: a crash in between sends nothing, and the step
that is run again sends once. What is emitted is committed before the report, with a row that names the step: the step
that is run again finds it.
"""

from typing import Any, Final
from uuid import UUID

import orjson

from orchestrator.core.outcomes import Completed, Failed, Outcome, SignalPosted
from orchestrator.core.sections import rfc3339
from orchestrator.errors import NotFound, RequestError
from sequences.signals import SignalError, parse_signal_type, written_type
from workers.context import StepContext
from workers.failures import failed
from workers.handlers.params import is_text, members, missing, wrong_input

NOT_FOUND: Final = "target instance not found"
"""Said of an unknown instance and of another tenant's alike."""


def send_signal(ctx: StepContext, params: Any) -> Outcome:
    """Send a signal to an instance of the same tenant that has not ended."""
    given = members(params)
    target = _instance_id(given)
    if isinstance(target, Failed):
        return target
    try:
        signal = parse_signal_type(given.get("signal_type"), name=given.get("name"))
    except SignalError as error:
        return wrong_input(str(error))
    payload = given.get("payload")
    if ctx.dry_run:
        would = {"instance_id": str(target), "signal_type": written_type(signal), "payload": payload}
        return Completed(output={"dry_run": True, "handler": "send_signal", "would": would, "signal_id": None})
    seen = ctx.flows.look_at(target)
    if seen is None:
        return failed(NOT_FOUND, retryable=False)
    if seen.state.is_terminal:
        return failed("cannot send signal to terminal instance", retryable=False)
    signal_id = ctx.flows.new_id()
    posted = SignalPosted(id=signal_id, recipient=target, signal=signal, payload=payload)
    return Completed(output={"signal_id": str(signal_id)}, effects=(posted,))


def query_instance(ctx: StepContext, params: Any) -> Outcome:
    """Read an instance of the same tenant; one that is not there is found to be so, and no failure."""
    target = _instance_id(members(params))
    if isinstance(target, Failed):
        return target
    seen = ctx.flows.look_at(target)
    if seen is None:
        return Completed(output={"found": False})
    return Completed(
        output={
            "found": True,
            "state": seen.state.value,
            "context": seen.context,
            "started_at": rfc3339(seen.created_at),
            "completed_at": rfc3339(seen.ended_at),
            "current_node": seen.current_node,
        }
    )


def emit_event(ctx: StepContext, params: Any) -> Outcome:
    """Start a flow through a trigger of the same tenant."""
    given = members(params)
    slug, data, meta = given.get("trigger_slug"), given.get("data", {}), given.get("meta")
    key, scope = given.get("dedupe_key"), given.get("dedupe_scope")
    if not is_text(slug):
        return missing("trigger_slug")
    if key is not None and (not is_text(key) or len(key.encode()) > MAX_KEY_BYTES):
        return wrong_input(f"dedupe_key must be a non-empty string of at most {MAX_KEY_BYTES} bytes")
    if scope not in {None, "parent", "tenant"}:
        return wrong_input('dedupe_scope must be "parent" or "tenant"')
    if len(orjson.dumps(data)) > MAX_DATA_BYTES:
        return wrong_input(f"data are larger than {MAX_DATA_BYTES} bytes")
    meta = meta if isinstance(meta, dict) else {}
    if ctx.dry_run:
        would = {"trigger_slug": slug, "data": data, "meta": meta}
        placeholders = {"instance_id": None, "sequence_name": None, "deduped": False}
        return Completed(output={"dry_run": True, "handler": "emit_event", "would": would, **placeholders})
    try:
        emitted = ctx.flows.emit(slug, data, meta, dedupe_key=key, is_tenant_wide=scope == "tenant")
    except RequestError as error:
        return failed(_SAID.get(type(error), "") + str(error), retryable=False)
    return Completed(
        output={
            "instance_id": str(emitted.instance_id),
            "sequence_name": emitted.sequence_name,
            "deduped": emitted.deduped,
        }
    )


MAX_DATA_BYTES: Final = 4 * 1024 * 1024
MAX_KEY_BYTES: Final = 1024
_SAID: Final[dict[type[RequestError], str]] = {NotFound: "not found: "}


def _instance_id(given: dict[str, Any]) -> UUID | Failed:
    if given.get("instance_id") is None:
        return missing("instance_id")
    try:
        return UUID(given["instance_id"])
    except (ValueError, AttributeError, TypeError):
        return wrong_input("instance_id must be a UUID")
