"""What can be done about an instance that stands still, as previews; and doing it, if it still stands as previewed.

Only what loses no work is offered: steps that have ended keep their outputs and are not run again. A preview is what
the engine itself decides about the event, without writing it. Its id names the action and how the instance stood, so
nothing is kept between the look and the act.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import orjson

from orchestrator.core.events import Event, Rescheduled, ResumeRequested, RetryRequested
from orchestrator.core.model import Step, is_beside
from orchestrator.core.states import InstanceState, StepState
from orchestrator.engine import Engine
from orchestrator.errors import Conflict, InvalidArgument, NotFound
from orchestrator.store import standing
from orchestrator.store.postgres import PostgresStore, PostgresTransaction
from orchestrator.store.standing import Standing

_DIGITS: Final = 24


class Action(StrEnum):
    """What can be done."""

    RETRY = "retry"
    RESUME = "resume"
    RETRY_NOW = "retry_now"


_WORDS: Final[dict[Action, str]] = {
    Action.RETRY: "open it again, at what has failed; all that has completed stays as it is",
    Action.RESUME: "let it go on from where it was paused",
    Action.RETRY_NOW: "make the next attempt now instead of waiting for the back-off to end",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an action would do.

    Args:
        id: To be given back when it is applied.
        from_state: Of the instance now.
        to_state: Of the instance when it is done.
        steps: Open steps that it would write, each as it would read.
    """

    id: str
    action: Action
    what: str
    from_state: InstanceState
    to_state: InstanceState
    steps: tuple[Step, ...]


def previews(engine: Engine, tx: PostgresTransaction, found: Standing) -> list[Preview]:
    """Say what can be done about an instance, best in the transaction in which it was looked at."""
    made = []
    for action, event in _offered(found):
        passed = engine.passage.foresee(tx, found.instance.id, event)
        if passed is not None:
            made.append(
                Preview(
                    id=_name(action, found),
                    action=action,
                    what=_WORDS[action],
                    from_state=found.instance.state,
                    to_state=passed.instance.state,
                    steps=tuple(step for step in passed.written if not is_beside(step.key)),
                )
            )
    return made


def apply(store: PostgresStore, engine: Engine, instance_id: UUID, preview_id: str) -> tuple[Action, InstanceState]:
    """Do what was previewed; returns what that was, and the state of the instance afterwards.

    Raises:
        NotFound: There is no such instance, or the id is none of a preview.
        Conflict: The instance no longer stands as it did.
    """
    action = _action_of(preview_id)
    engine.passage.know_handlers()
    with store.transaction() as tx:
        now = tx.lock([instance_id], []).now
        found = standing.of_instance(tx, instance_id, engine.settings.dead_after)
        if found is None:
            raise NotFound(f"instance {instance_id}")
        event = dict(_offered(found)).get(action)
        if event is None or _name(action, found) != preview_id:
            raise Conflict(f"instance {instance_id} no longer stands as previewed: look again")
        try:
            passed = engine.passage.within(tx, instance_id, event, now)
        except InvalidArgument as refused:
            raise Conflict(f"instance {instance_id} no longer stands as previewed: {refused}") from refused
    engine.passage.follow_up(passed)
    return action, passed.instance.state


def _offered(found: Standing) -> Iterator[tuple[Action, Event]]:
    instance = found.instance
    if instance.state is InstanceState.FAILED:
        yield Action.RETRY, RetryRequested()
    elif instance.is_held and instance.state in {InstanceState.PAUSED, InstanceState.WAITING, InstanceState.RUNNING}:
        yield Action.RESUME, ResumeRequested()
    elif instance.state is InstanceState.SCHEDULED and (wait := _back_off(found)) is not None:
        yield Action.RETRY_NOW, Rescheduled(by=-wait)


def _back_off(found: Standing) -> timedelta | None:
    """Give the longest back-off that is left; None if anything else is waited for: only a back-off may be cut short."""
    flow = [each.step for each in found.steps if not is_beside(each.step.key)]
    if not flow or any(step.state is not StepState.BACKOFF or step.wake_at is None for step in flow):
        return None
    if {key for key, _ in found.timers if not is_beside(key)} - {step.key for step in flow}:
        return None
    return max((step.wake_at - found.now for step in flow if step.wake_at is not None), default=None)


def _name(action: Action, found: Standing) -> str:
    """Name an action on an instance as it stands; claims change no version, so the steps are named too."""
    instance = found.instance
    steps = [[each.step.id, each.step.state, each.step.token, each.step.attempt] for each in found.steps]
    written = orjson.dumps([instance.id, action, instance.version, steps])
    return f"{action}-{hashlib.sha256(written).hexdigest()[:_DIGITS]}"


def _action_of(preview_id: str) -> Action:
    word, dash, digest = preview_id.rpartition("-")
    if not dash or len(digest) != _DIGITS or not set(digest) <= set("0123456789abcdef") or word not in set(Action):
        raise NotFound(f"remediation {preview_id}")
    return Action(word)
