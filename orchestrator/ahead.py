"""Steps without effects are run in the commit of the step before them.

What such a step does cannot be seen from outside until its outcome is stored: it reads its inputs and gives an output.
Should the commit fail, or its process die, it is run again, and nobody can tell. So a worker that reports an outcome
runs the steps that follow from it at once, in memory, as long as their handlers have no effects; all of them are stored
together. Each has its claim, its history row and its output like any other step, but its row in `steps` is never
written.

A step is left to be claimed as usual if anything about it waits or counts: a time-out, a deadline, a cached output,
credentials, an earlier attempt, a worker it has lost.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from orchestrator.briefing import Briefing
from orchestrator.carry import CarryOn, claimed
from orchestrator.clock import MachineTime
from orchestrator.core.changes import StepPut, steps_left
from orchestrator.core.decider import Decision, decide
from orchestrator.core.events import AttemptFinished
from orchestrator.core.model import Claim, Step
from orchestrator.core.states import Activity, StepState
from orchestrator.exchange import Report
from orchestrator.store.rows import claim_of
from orchestrator.turnstile import Passed, Turnstile

LONGEST_SECONDS = 0.05
"""How long the steps ahead of one commit may take: what it stores is seen no later than it would be in a batch."""


@dataclass(slots=True)
class Ahead:
    """Goes on with instances whose events have been decided in memory."""

    carry_on: CarryOn
    briefing: Briefing
    turnstile: Turnstile
    machine: MachineTime
    _reports: dict[UUID, list[Report]] = field(default_factory=dict)
    _until: float = field(init=False)

    def __post_init__(self) -> None:
        """Let the time begin."""
        self._until = self.machine.monotonic() + LONGEST_SECONDS

    def go_on(self, passed: Passed) -> None:
        """Run what follows from the decisions about one instance, and decide what follows from that."""
        for step in self._followers(passed):
            now = self.turnstile.now()
            given = claimed(step, self.carry_on.worker, now)
            passed.current.take([StepPut(step=given)])
            done = self._run(passed, claim_of(passed.instance.id, given), now)
            if done is None:
                passed.current.take([StepPut(step=step)])
                continue
            report, decision = done
            passed.current.take(decision.changes)
            passed.current.forget_ended()
            passed.ahead.append(decision)
            self._reports.setdefault(passed.instance.id, []).append(report)

    def reports(self, passed: Mapping[UUID, Passed]) -> tuple[Report, ...]:
        """Give what was run ahead and is stored now; what was decided anew under the lock is without it."""
        return tuple(report for i, each in passed.items() if each.ahead for report in self._reports[i])

    def _followers(self, passed: Passed) -> Iterator[Step]:
        """Give the steps that may be run ahead, those that follow from them included."""
        instance_id = passed.instance.id
        waiting = steps_left(change for decision in passed.decisions for change in decision.changes)
        while waiting:
            step, *waiting = waiting
            if self.carry_on.rounds_left(instance_id) <= 0 or self.machine.monotonic() >= self._until:
                return
            if passed.current.steps.get(step.key) is step and self._is_for_us(step):
                before = len(passed.ahead)
                yield step
                waiting += steps_left(change for decision in passed.ahead[before:] for change in decision.changes)

    def _is_for_us(self, step: Step) -> bool:
        carry = self.carry_on
        return (
            step.state is StepState.READY
            and step.activity is Activity.RUNNING
            and step.handler in carry.effectless
            and step.queue in carry.queues
            and step.priority >= carry.least_priority
            and not step.attempt
            and not step.losses
            and step.timeout is None
            and step.deadline_at is None
            and step.cache_key is None
            and step.former is None
        )

    def _run(self, passed: Passed, claim: Claim, now: datetime) -> tuple[Report, Decision] | None:
        """Run a step and decide its outcome; None if something is lacking: then it is run, or fails, by itself.

        What a slice forgets between two steps may not be stored yet, and must not be read as it was before.
        """
        try:
            work = self.briefing.work_ahead(passed.current, claim, may_load=not passed.ahead)
            outcome = None if work is None else self.carry_on.run(work)
            if outcome is None:
                return None
            report = Report(claim=claim, outcome=outcome)
            event = AttemptFinished(claim=claim, outcome=outcome)
            decision = decide(passed.current, event, self.turnstile.facts(now))
        except Exception:  # noqa: BLE001 - of a step that nobody has claimed yet; the one before must be stored all the same
            return None
        return (report, decision) if isinstance(decision, Decision) and decision.changes else None
