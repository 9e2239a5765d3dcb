"""How events reach instances: through the turnstile, and then what their commit leaves to be done at once.

Hints go out after the commit; nothing waits for them, and nothing is lost with them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from orchestrator.ahead import Ahead
from orchestrator.carry import CarryOn, ReadySteps, hints_for
from orchestrator.core.decider import Decision
from orchestrator.core.events import Event
from orchestrator.errands import Errands, Messenger
from orchestrator.errors import InvalidArgument, NotFound, PayloadTooLarge
from orchestrator.exchange import Tally
from orchestrator.handlers_known import KnownHandlers
from orchestrator.store.interface import Store, Transaction
from orchestrator.turnstile import Events, Passed, Turnstile
from queues.broker import Hint

AT_ONCE: Final = 100
"""Instances that one transaction of a bulk operation locks."""

Ring = Callable[[Sequence[Hint]], None]
"""Sends hints without making the caller wait."""


class Passage:
    """Passes events through the turnstile, rings for what they leave ready, and runs the errands they leave.

    Args:
        known: Handlers that living workers know: only steps of these are rung for.
        ring: Sends hints; None leaves all of them to the dispatcher.
    """

    def __init__(self, store: Store, turnstile: Turnstile, known: KnownHandlers, ring: Ring | None) -> None:
        self.turnstile = turnstile
        self.rings = ring is not None
        self._known = known
        self._ring = ring or _ring_nobody
        self._messenger = Messenger(store, self._alone)

    def through(
        self, events: Events, carry_on: CarryOn | None = None, ahead: Ahead | None = None
    ) -> dict[UUID, Passed]:
        """Let instances take events, in one transaction, as far as these exist; then do what that leaves to be done."""
        passed = self._alone(events, carry_on, ahead)
        self._messenger.run(Errands.of(passed))
        return passed

    def _alone(self, events: Events, carry_on: CarryOn | None = None, ahead: Ahead | None = None) -> dict[UUID, Passed]:
        known = self._known.names()
        passed = self.turnstile.pass_through(
            events,
            lambda: ReadySteps(carry_on, known, rings=self.rings).rewrite,
            None if ahead is None else ahead.go_on,
        )
        left = [step for each in passed.values() for step in each.ready]
        self._ring(hints_for(sorted(left, key=lambda step: (-step.priority, step.ready_at or step.entered_at))))
        return passed

    def one(self, instance_id: UUID, event: Event) -> Passed:
        """Let an instance take an event.

        Raises:
            NotFound: There is no such instance.
            InvalidArgument: It cannot take the event as it stands.
            PayloadTooLarge: What the event brings does not fit into the context.
        """
        self.turnstile.take(instance_id)
        passed = self.through({instance_id: [event]}).get(instance_id)
        if passed is None:
            raise NotFound(f"instance {instance_id}")
        return _taken(passed)

    def each(self, ids: Sequence[UUID], event: Callable[[], Event]) -> Tally:
        """Let each of many instances take one event, some at a time, so that no transaction holds many locks for long.

        What this process remembers of the instances may be old, so it is left aside.
        """
        applied = refused = 0
        for start in range(0, len(ids), AT_ONCE):
            part = ids[start : start + AT_ONCE]
            for instance_id in part:
                self.turnstile.take(instance_id)
            passed = self.through({instance_id: [event()] for instance_id in part})
            taken = sum(one.decisions[0].refusal is None for one in passed.values())
            applied += taken
            refused += len(passed) - taken
        return Tally(applied=applied, refused=refused, gone=len(ids) - applied - refused)

    def know_handlers(self) -> None:
        """Learn which handlers living workers know, for `within`, which asks nobody."""
        self._known.names()

    def within(self, tx: Transaction, instance_id: UUID, event: Event, now: datetime) -> Passed:
        """Let an instance take an event in a transaction of the caller's, who holds it; `follow_up` comes after.

        Raises:
            InvalidArgument: It cannot take the event as it stands.
            PayloadTooLarge: What the event brings does not fit into the context.
        """
        self.turnstile.take(instance_id)
        known = self._known.latest()
        passed = self.turnstile.pass_within(
            tx, {instance_id: [event]}, now, lambda: ReadySteps(None, known, rings=self.rings).rewrite
        )
        return _taken(passed[instance_id])

    def foresee(self, tx: Transaction, instance_id: UUID, event: Event) -> Passed | None:
        """Say what would become of an instance that takes an event; nothing is written. None if it cannot take it."""
        passed = self.turnstile.foresee(tx, instance_id, event)
        return None if passed is None or passed.decisions[0].refusal is not None else passed

    def follow_up(self, passed: Passed) -> None:
        """Do what an event that went through `within` leaves to be done, after the commit."""
        self.see_off(hints_for(passed.ready), Errands.of({passed.instance.id: passed}))

    def see_off(self, hints: Sequence[Hint], errands: Errands) -> None:
        """Ring for what a commit of the caller's has left ready, and run the errands it has left."""
        self._ring(hints)
        self._messenger.run(errands)

    def deliver(self, recipients: Sequence[UUID]) -> int:
        """Have instances open the letters that wait for them; returns how many letters that were."""
        return self._messenger.deliver(recipients)


def stale_in(events: Mapping[UUID, Sequence[Event]], passed: Mapping[UUID, Passed]) -> list[Event]:
    """Give the events that came too late to mean anything."""
    return [
        event
        for instance_id, each in passed.items()
        for event, decision in zip(events[instance_id], each.decisions, strict=True)
        if decision.is_stale
    ]


def _taken(passed: Passed) -> Passed:
    refused = passed.decisions[0]
    if refused.refusal is not None:
        raise error_of(refused)
    return passed


def error_of(decision: Decision) -> InvalidArgument | PayloadTooLarge:
    """Give what is raised for an event that an instance could not take."""
    reason = decision.refusal or ""
    return PayloadTooLarge(reason) if decision.is_too_large else InvalidArgument(reason)


def _ring_nobody(_hints: Sequence[Hint]) -> None:
    pass
