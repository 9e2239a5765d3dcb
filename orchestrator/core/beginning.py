"""What new instances begin with alike.

Instances that are created together mostly differ in their ids and contexts, and most sequences begin with a step that
depends on neither: then the first decision is the same for all of them. It is made once, for one that has nothing of
its own. Whatever would read its context, see its ids, or draw a random number ends the attempt, and each instance is
decided for itself. Time is no matter: all of them begin at one moment.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random

from orchestrator.core.changes import Change, InstancePut, StepPut, TimerPut, TransitionRecorded
from orchestrator.core.decider import decide
from orchestrator.core.events import Created
from orchestrator.core.facts import Facts
from orchestrator.core.model import Instance, Step
from orchestrator.core.plan import Plan
from orchestrator.core.slice import Needs, Slice, Unloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """How instances read after their first decision, but for their own ids.

    Args:
        step: Where each of them stands; None for a start in the future.
        timers: What each of them waits for.
        transitions: Audit rows of each of them.
    """

    instance: Instance
    step: Step | None
    timers: tuple[TimerPut, ...]
    transitions: tuple[TransitionRecorded, ...]


class _NoRandomness(Random):
    """Ends a decision that depends on chance."""

    def random(self) -> float:
        raise Unloaded(Needs())

    def getrandbits(self, _count: int, /) -> int:
        raise Unloaded(Needs())


_NO_RANDOMNESS = _NoRandomness()


def common(plan: Plan, instance: Instance, not_before: datetime | None, facts: Facts) -> Beginning | None:
    """Decide how all new instances begin that are like one of them; None if they may differ.

    Args:
        instance: One of them. The others may have other ids and other contexts.
    """
    anyone = Slice.of_anyone(plan, instance)
    decision = decide(anyone, Created(not_before=not_before), replace(facts, random=_NO_RANDOMNESS))
    return None if isinstance(decision, Needs) else _beginning(decision.changes)


def _beginning(changes: Iterable[Change]) -> Beginning | None:
    """Read a decision as a beginning; None if it writes anything else, which may hold an id of the instance."""
    instance, step = None, None
    timers: list[TimerPut] = []
    transitions: list[TransitionRecorded] = []
    for change in changes:
        match change:
            case InstancePut():
                instance = change.instance
            case StepPut() if step is None:
                step = change.step
            case TimerPut():
                timers.append(change)
            case TransitionRecorded():
                transitions.append(change)
            case _:
                return None
    if instance is None:
        return None
    return Beginning(instance=instance, step=step, timers=tuple(timers), transitions=tuple(transitions))
