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


def merged(data: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Give data with top-level keys laid over it; data that is no object gives way to one."""
    return {**data, **values} if isinstance(data, dict) else dict(values)


def merge_checked(turn: Turn, values: Mapping[str, Any]) -> None:
    """Write top-level keys of `context.data`; raises TooLarge if they do not fit."""
    if values and (reason := _data_too_large(turn, merged(turn.context.data, values))) is not None:
        raise TooLarge(reason)
    turn.merge_data(values)


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


def merging(turn: Turn, key: NodeKey, outcome: Completed) -> Mapping[str, Any]:
    """Give the members of an output that are written to the data.

    The variables of for_eachs that run one item after another are not: inside of the block the item hides them, and
    when it ends they are gone (§3.5).
    """
    if not outcome.merges or not isinstance(outcome.output, dict):
        return {}
    bound = turn.plan_of(key).variables(key.block_id)
    return {name: value for name, value in outcome.output.items() if name not in bound} if bound else outcome.output


def refusal(turn: Turn, outcome: Completed, values: Mapping[str, Any]) -> Failed | None:
    """Say why what a step wants to write cannot be written: it would be too large, or there is no session.

    Args:
        values: Members of its output that are merged into the data.
    """
    writes_data = any(isinstance(effect, DataWritten) for effect in outcome.effects)
    reason = None
    if values or writes_data:
        reason = _data_too_large(turn, _data_after(turn.context.data, values, outcome.effects))
    shared = [effect for effect in outcome.effects if isinstance(effect, SharedWritten | SharedDeleted)]
    if shared and turn.instance.session_id is None:
        reason = "the instance has no session"
    elif shared:
        reason = reason or _session_too_large(turn, _session_after(turn.session_data, shared))
    return None if reason is None else Failed(message=reason, retryable=False, kind=FailureKind.OUTPUT)


def _data_after(data: Any, values: Mapping[str, Any], effects: tuple[Effect, ...]) -> Any:
    after = merged(data, values) if values else data
    for effect in effects:
        if isinstance(effect, DataWritten):
            after = written(after, effect.path, effect.value)
    return after


def _session_after(data: Any, effects: list[SharedWritten | SharedDeleted]) -> Any:
    for effect in effects:
        if isinstance(effect, SharedWritten):
            data = written(data, effect.path, effect.value)
    return data


def apply_effects(turn: Turn, effects: Iterable[Effect]) -> None:
    """Write what a handler wants written beside its output."""
    for effect in effects:
        _apply_effect(turn, effect)


def _apply_effect(turn: Turn, effect: Effect) -> None:
    match effect:
        case StateWritten(key=key, value=value):
            turn.set_state(key, value)
        case StateDeleted(key=key):
            turn.delete_state(key)
        case DataWritten(path=path, value=value):
            turn.put_context(written(turn.context.data, path, value), turn.context.config)
        case SharedWritten() | SharedDeleted() if turn.instance.dry_run:
            pass  # others see the session: a dry run leaves it as it is
        case SharedWritten(path=path, value=value):
            turn.change_session(SessionWritten(session_id=turn.session_id, path=path, value=value))
        case SharedDeleted(key=key):
            turn.change_session(SessionMemberGone(session_id=turn.session_id, name=key))
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
