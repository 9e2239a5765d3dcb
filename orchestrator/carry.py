"""Which of the steps that a commit leaves ready the committing worker claims at once, and which are hinted.

A worker that finishes a step carries on with the next one of the same instance in the same transaction: no message, no
second commit. Steps it does not take are rung for directly, a few for each queue; the dispatcher sees to the rest.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from orchestrator.core.changes import Change, StepPut, steps_left
from orchestrator.core.model import Step
from orchestrator.core.outcomes import Outcome
from orchestrator.core.states import Activity, StepState
from orchestrator.core.steps import runs_in_process
from orchestrator.core.values import replace
from orchestrator.exchange import Work
from orchestrator.store.claiming import Worker
from queues.broker import Hint
from sequences.durations import after

DEADLINE_GRACE = timedelta(seconds=1)
"""How long after its step's deadline an attempt is stopped; the breach itself is a timer's, and comes first."""
DIRECT_HINTS = 8
"""Hints for one queue that one commit sends by itself."""


def _leave(_work: Work) -> None:
    """Run nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryOn:
    """What a worker that reports outcomes is ready to do next.

    Args:
        queues: Queues it serves.
        handlers: Handlers it knows.
        instant: Those of them that never block: up to `limit` of their steps are claimed together.
        limit: Steps it takes at most; 0 to take none.
        rounds_left: Says how many more steps of an instance it may run in a row.
        least_priority: Steps below it are left to others: something more urgent waits for this worker.
        effectless: Handlers without effects: their steps may be run before the commit that would claim them.
        run: Runs a step of such a handler; None if it has to be claimed first.
    """

    worker: Worker
    queues: frozenset[str]
    handlers: frozenset[str]
    instant: frozenset[str]
    limit: int
    rounds_left: Callable[[UUID], int]
    least_priority: int = -1
    effectless: frozenset[str] = frozenset()
    run: Callable[[Work], Outcome | None] = _leave


@dataclass(slots=True)
class ReadySteps:
    """Goes through what a commit leaves ready, instance by instance, and claims or hints it.

    Args:
        rings: Whether the committing process sends hints. One that does not must not note any as sent: the dispatcher
            would wait for their answer.
    """

    carry_on: CarryOn | None
    known_handlers: Collection[str]
    rings: bool = True
    _taken: int = 0
    _is_full: bool = False
    _hinted: Counter[str] = field(default_factory=Counter)

    def rewrite(self, instance_id: UUID, changes: tuple[Change, ...], now: datetime) -> tuple[Change, ...]:
        """Add to the changes of one instance the claims and hints that follow from them."""
        added: list[Change] = []
        for step in sorted(steps_left(changes), key=_is_aside):
            if step.state is StepState.READY:
                rewritten = self._claimed(instance_id, step, now) or self._rung(step, now)
                if rewritten is not None:
                    added.append(StepPut(step=rewritten))
        return (*changes, *added) if added else changes

    def _claimed(self, instance_id: UUID, step: Step, now: datetime) -> Step | None:
        carry = self.carry_on
        if carry is None or self._is_full or self._taken >= carry.limit:
            return None
        if step.priority < carry.least_priority:
            return None
        if step.queue not in carry.queues or step.handler not in carry.handlers or carry.rounds_left(instance_id) <= 0:
            return None
        is_instant = step.handler in carry.instant
        if not is_instant and self._taken:
            return None
        self._taken += 1
        self._is_full = not is_instant
        return claimed(step, carry.worker, now)

    def _rung(self, step: Step, now: datetime) -> Step | None:
        return replace(step, hinted_at=now) if self.rung_of(step, 1) else None

    def rung_of(self, step: Step, count: int) -> int:
        """Say for how many of so many ready steps like one, the first ones, a hint is sent."""
        if not self.rings or (step.handler not in self.known_handlers and not runs_in_process(step.handler)):
            return 0
        rung = min(count, DIRECT_HINTS - self._hinted[step.queue])
        self._hinted[step.queue] += rung
        return rung


def _is_aside(step: Step) -> bool:
    """Tell whether a step is a call beside the flow: the flow itself comes first."""
    return step.activity is Activity.ASIDE


def claimed(step: Step, worker: Worker, now: datetime) -> Step:
    """Give a ready step to a worker."""
    expires_at = step.expires_at
    if expires_at is None and step.timeout is not None:
        expires_at = after(now, step.timeout)
    if step.deadline_at is not None:
        latest = after(step.deadline_at, DEADLINE_GRACE)
        expires_at = latest if expires_at is None else min(expires_at, latest)
    return replace(
        step,
        state=StepState.CLAIMED,
        token=uuid4(),
        worker_id=worker.id,
        worker_name=worker.name,
        slot=worker.slot,
        claimed_at=now,
        claim_epoch=step.claim_epoch + 1,
        expires_at=expires_at,
    )


def hints_for(ready: Iterable[Step]) -> list[Hint]:
    """Give the hints that a commit has promised for the steps it left ready."""
    return [
        Hint(step_id=step.id, attempt=step.attempt, queue=step.queue, hint_id=uuid4())
        for step in ready
        if step.state is StepState.READY and step.hinted_at is not None
    ]
