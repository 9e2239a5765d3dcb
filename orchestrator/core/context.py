"""Who writes to the context of an instance, and how much fits into it (sequences contract §8.1, §2.3).

The API, signals, gates and outputs all write through here, so one limit holds for all of them. Only what the engine
itself notes (`_error` of a handled failure) is not weighed: a failure must never be lost because the data are full.
"""

from collections.abc import Iterable, Mapping
from typing import Any, assert_never

import orjson

from orchestrator.core.changes import SessionMemberGone, SessionWritten
from orchestrator.core.injection import inject
from orchestrator.core.letters import SignalSent
from orchestrator.core.model import NodeKey
from orchestrator.core.outcomes import (
    BlocksAdded,
    CheckpointKept,
    Completed,
    DataWritten,
    Effect,
    Failed,
    FailureKind,
    SharedDeleted,
    SharedWritten,
    SignalPosted,
    StateDeleted,
    StateWritten,
)
from orchestrator.core.overlay import ERROR
from orchestrator.core.own_names import error_in, members_after, merge_at, rewrite_errors, without_variables
from orchestrator.core.sections import merged
from orchestrator.core.shared import written
from orchestrator.core.signalling import event_of_signal
from orchestrator.core.turn import Turn

SESSION_MEMBER = "_session"
"""Member of a worker's output that is merged into the data of the session (§8.6)."""


class TooLarge(Exception):
    """What a client wants to write would make the context larger than it may be."""


def context_bytes(data: Any, config: Any) -> int:
    """Weigh the sections of a context, as JSON text.

    >>> context_bytes({"a": 1}, None)
    31
    """
    return len(orjson.dumps({"data": data, "config": config}))


def merge_checked(turn: Turn, values: Mapping[str, Any]) -> None:
    """Write top-level keys of `context.data` from outside of the flow; raises TooLarge if they do not fit."""
    _check(turn, values)
    turn.merge_data(values)
    if ERROR in values:
        rewrite_errors(turn, {ERROR: values[ERROR]})


def replace_data(turn: Turn, data: Any, config: Any) -> None:
    """Put other sections in the place of those there are, whatever their size: the API has weighed them."""
    before, after = error_in(turn.context.data), error_in(data)
    turn.put_context(data, config)
    if after != before:
        rewrite_errors(turn, after)


def write_checked(turn: Turn, key: NodeKey, values: Mapping[str, Any]) -> None:
    """Write top-level keys of `context.data` from where a block stands; raises TooLarge if they do not fit."""
    values = without_variables(turn, key, values)
    _check(turn, values)
    merge_at(turn, key, values)


def write_output(turn: Turn, key: NodeKey, outcome: Completed) -> None:
    """Write what a step has brought to the data, and whatever else its handler wants written."""
    merge_at(turn, key, _merging(turn, key, outcome))
    write_effects(turn, key, outcome.effects)


def _merging(turn: Turn, key: NodeKey, outcome: Completed) -> Mapping[str, Any]:
    """Give the members of an output that are written to the data."""
    if not outcome.merges or not isinstance(outcome.output, dict):
        return {}
    return without_variables(turn, key, outcome.output)


def _check(turn: Turn, values: Mapping[str, Any]) -> None:
    if values and (reason := _data_too_large(turn, merged(turn.context.data, values))) is not None:
        raise TooLarge(reason)


def _data_too_large(turn: Turn, data: Any) -> str | None:
    size = context_bytes(data, turn.context.config)
    if size <= turn.facts.max_context_bytes:
        return None
    return f"the context would be {size} bytes; the limit is {turn.facts.max_context_bytes}"


def _session_too_large(turn: Turn, data: Any) -> str | None:
    size = len(orjson.dumps(data))
    if size <= turn.facts.max_context_bytes:
        return None
    return f"the data of the session would be {size} bytes; the limit is {turn.facts.max_context_bytes}"


def without_session(turn: Turn, outcome: Completed, *, is_builtin: bool) -> Completed:
    """Turn the `_session` member of a worker's output into writes to the session; without a session it is ordinary."""
    output = outcome.output
    if is_builtin or turn.instance.session_id is None or not isinstance(output, dict):
        return outcome
    if not isinstance(output.get(SESSION_MEMBER), dict):
        return outcome
    shared = tuple(SharedWritten(path=(name,), value=value) for name, value in output[SESSION_MEMBER].items())
    rest = {name: value for name, value in output.items() if name != SESSION_MEMBER}
    return Completed(output=rest, merges=outcome.merges, effects=(*outcome.effects, *shared))


def refusal(turn: Turn, key: NodeKey, outcome: Completed) -> Failed | None:
    """Say why what a step wants to write cannot be written: it would be too large, or there is no session."""
    values = _merging(turn, key, outcome)
    written_below = [effect for effect in outcome.effects if isinstance(effect, DataWritten)]
    reason = None
    if values or written_below:
        reason = _data_too_large(turn, _data_after(turn, key, values, written_below))
    shared = [effect for effect in outcome.effects if isinstance(effect, SharedWritten | SharedDeleted)]
    if shared and turn.instance.session_id is None:
        reason = "the instance has no session"
    elif shared:
        reason = reason or _session_too_large(turn, _session_after(turn.session_data, shared))
    return None if reason is None else Failed(message=reason, retryable=False, kind=FailureKind.OUTPUT)


def _data_after(turn: Turn, key: NodeKey, values: Mapping[str, Any], written_below: list[DataWritten]) -> Any:
    after = merged(turn.context.data, values) if values else turn.context.data
    seen = merged(turn.data_seen(key), values) if written_below else None
    for effect in written_below:
        members = members_after(turn, key, seen, effect.path, effect.value)
        if members:
            after, seen = merged(after, members), merged(seen, members)
    return after


def _session_after(data: Any, effects: list[SharedWritten | SharedDeleted]) -> Any:
    for effect in effects:
        if isinstance(effect, SharedWritten):
            data = written(data, effect.path, effect.value)
    return data


def write_effects(turn: Turn, key: NodeKey, effects: Iterable[Effect]) -> None:
    """Write what a handler wants written beside its output."""
    for effect in effects:
        _write_effect(turn, key, effect)


def _write_effect(turn: Turn, key: NodeKey, effect: Effect) -> None:
    match effect:
        case StateWritten(key=name, value=value):
            turn.set_state(name, value)
        case StateDeleted(key=name):
            turn.delete_state(name)
        case DataWritten(path=path, value=value):
            _write_at(turn, key, path, value)
        case SharedWritten() | SharedDeleted() if turn.instance.dry_run:
            pass  # others see the session: a dry run leaves it as it is
        case SharedWritten(path=path, value=value):
            turn.change_session(SessionWritten(session_id=turn.session_id, path=path, value=value))
        case SharedDeleted(key=name):
            turn.change_session(SessionMemberGone(session_id=turn.session_id, name=name))
        case BlocksAdded(blocks=blocks, position=position):
            inject(turn, blocks, position)
        case SignalPosted(recipient=turn.instance.id, signal=signal, payload=payload):
            turn.sent_to_itself.append(event_of_signal(effect.id, signal, payload))
        case SignalPosted(recipient=recipient, signal=signal, payload=payload):
            turn.write_letter(recipient, SignalSent(signal=signal, payload=payload), letter_id=effect.id)
        case CheckpointKept():
            turn.save_checkpoint(effect.id, effect.value, effect.keep)
        case _:
            assert_never(effect)


def _write_at(turn: Turn, key: NodeKey, path: tuple[str, ...], value: Any) -> None:
    merge_at(turn, key, members_after(turn, key, turn.data_seen(key), path, value))
