"""The door: every change of an instance comes through here, and every claim.

Each verb is one transaction: load what the event touches, let the core decide, write what it decided, commit. What
people do to instances by hand stands in `interventions.py`.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from orchestrator.ahead import Ahead
from orchestrator.briefing import Briefing
from orchestrator.carry import CarryOn
from orchestrator.clock import MACHINE_TIME, MachineTime
from orchestrator.core.events import (
    AttemptFinished,
    AttemptLost,
    AttemptReturned,
    Event,
    TimerFired,
)
from orchestrator.core.model import Claim
from orchestrator.core.states import StepState
from orchestrator.emitting import Emission, Emitted, Emitter
from orchestrator.exchange import (
    Begun,
    Finished,
    NewInstance,
    OtherFlow,
    Report,
    Started,
    Wish,
    Work,
)
from orchestrator.handlers_known import KnownHandlers
from orchestrator.interventions import Interventions
from orchestrator.passage import Passage, Ring, stale_in
from orchestrator.settings import Settings
from orchestrator.slices import Plans
from orchestrator.starting import Starter
from orchestrator.store.claiming import Worker
from orchestrator.store.definitions import Head
from orchestrator.store.interface import Store, Transaction
from orchestrator.store.leases import HeldTask
from orchestrator.store.rows import claim_of
from orchestrator.store.timers import Due
from orchestrator.turnstile import Turnstile


class Engine:
    """The state machine service. Synchronous; safe to use from several threads.

    Args:
        store: Where the truth is.
        ring: Sends hints; None leaves all of them to the dispatcher.
        randomness: Where jitter and random numbers come from; None for a source of its own.
        machine: Tells durations, and waits between tries.
        plans: Compiled definitions, if others share them; None for its own.
    """

    def __init__(
        self,
        store: Store,
        ring: Ring | None,
        settings: Settings,
        *,
        randomness: Random | None = None,
        machine: MachineTime = MACHINE_TIME,
        plans: Plans | None = None,
    ) -> None:
        self.store = store
        self.settings = settings
        self.machine = machine
        self.randomness = randomness or Random()  # noqa: S311 - jitter, not secrets
        self._known = KnownHandlers(store, settings.dead_after, machine)
        turnstile = Turnstile(
            store,
            max_context_bytes=settings.max_context_bytes,
            max_losses=settings.max_losses,
            first_wait=timedelta(milliseconds=settings.tick_interval_ms or 0),
            webhook_urls=settings.webhook_urls,
            known_handlers=self._known.latest,
            routes=self._known.routes,
            randomness=self.randomness,
            machine=machine,
            plans=plans,
        )
        self.passage = Passage(store, turnstile, self._known, ring)
        self.interventions = Interventions(store, self.passage)
        self._turnstile = turnstile
        self._starter = Starter(turnstile, self._known, settings, rings=self.passage.rings)
        self._briefing = Briefing(store, turnstile)

    # -- starting ------------------------------------------------------------------------------------------------

    def start_many(self, requests: Sequence[NewInstance]) -> list[Started]:
        """Accept instances, all or none, and let their first steps be claimed.

        Raises:
            SequenceGone: A sequence does not exist.
        """
        self.know_handlers()
        with self.store.transaction() as tx:
            begun = self.begin(tx, requests)
        self.see_off(begun)
        return begun.started

    def start_at_once(self, requests: Sequence[NewInstance], seen: Collection[Head]) -> list[Started] | None:
        """Accept instances as `start_many` does, if one message is enough for all of them; else none, and give None.

        Args:
            seen: What the requests were checked against; nothing is accepted if that is no longer so.

        Raises:
            StoreUnavailable: The store did not answer; whether they were accepted is unknown.
        """
        self.know_handlers()
        begun = self._starter.begin_at_once(requests, seen)
        if begun is None:
            return None
        self.see_off(begun)
        return begun.started

    def know_handlers(self) -> None:
        """Learn which handlers living workers know, for `begin`, which asks nobody."""
        self.passage.know_handlers()

    def begin(self, tx: Transaction, requests: Sequence[NewInstance]) -> Begun:
        """Accept instances in a transaction of the caller's, who calls `see_off` after its commit."""
        return self._starter.begin(tx, requests)

    def see_off(self, begun: Begun) -> None:
        """Ring for what new instances have left ready, and start their children."""
        self.passage.see_off(begun.hints, begun.errands)

    # -- claiming and reporting ----------------------------------------------------------------------------------

    def claim(self, worker: Worker, wish: Wish, *, step_id: UUID | None = None) -> list[Claim]:
        """Claim ready steps of a queue; may be none.

        The first is the one a hint names, if it is still ready and none is of a higher priority, else the most urgent.
        More are claimed with it only if all of them are of handlers that can be run together.
        """
        asked_at = self.machine.monotonic()
        with self.store.transaction(is_losable=True, is_single=True) as tx:
            taken = tx.claim_ready(
                wish.queue,
                wish.handlers,
                worker,
                step_id=step_id,
                together=wish.together,
                readers=wish.readers,
                limit=wish.limit,
                alive_within=self._known.wanted(),
            )
        self._known.note(taken.known, asked_at)
        claims = [claim_of(instance_id, step) for instance_id, step in taken.steps]
        self._forget(claims)
        self._briefing.remember(taken)
        return claims

    def most_urgent(self, queues: Collection[str], handlers: Collection[str]) -> int:
        """Give the highest priority among the steps that these handlers could run now; -1 if there is none."""
        with self.store.transaction(is_losable=True) as tx:
            return tx.most_urgent(list(queues), list(handlers))

    def held_by(self, worker: Worker) -> list[Claim]:
        """List the claims of one child of a worker process, also those it may not know of."""
        if worker.id is None:
            return []
        with self.store.transaction() as tx:
            claims = tx.claims_of_slots(worker.id)
        held = [claim for slot, claim in claims if slot == worker.slot]
        self._forget(held)
        return held

    def claim_tasks(
        self,
        takers: Sequence[str],
        *,
        handler: str,
        queue: str | None,
        tenant_id: str | None,
        rank: tuple[int, ...] | None = None,
    ) -> list[HeldTask]:
        """Claim tasks for workers that poll over HTTP; a plain poll (no queue) takes tasks without a queue.

        Args:
            takers: The name of the worker that gets each task, the oldest first; so many are claimed at the most.
        """
        with self.store.transaction(is_single=True) as tx:
            taken = tx.claim_tasks(
                queue=queue or "default",
                is_named=queue is not None,
                handler=handler,
                tenant_id=tenant_id,
                takers=takers,
                rank=rank,
            )
        self._forget(task.claim for task in taken.tasks)
        self._briefing.remember(taken)
        return taken.tasks

    def _forget(self, claims: Iterable[Claim]) -> None:
        """Drop slices that other processes may have changed since this one saw them."""
        for claim in claims:
            self._turnstile.take(claim.instance_id)

    def inputs(self, claims: Sequence[Claim]) -> list[Work]:
        """Build what the handlers of some claims are given; claims whose instance is gone are left out."""
        return self._briefing.inputs(claims)

    def finish(self, reports: Sequence[Report], carry_on: CarryOn | None = None) -> Finished:
        """Commit the outcomes of attempts, and claim what the worker carries on with, in one transaction.

        Raises:
            StoreUnavailable: Nothing is known of the commit: report again, a repeated report changes nothing.
        """
        events: dict[UUID, list[Event]] = {}
        for report in reports:
            event = AttemptFinished(claim=report.claim, outcome=report.outcome, logs=report.logs)
            events.setdefault(report.claim.instance_id, []).append(event)
        ahead = self._ahead(reports, carry_on)
        passed = self.passage.through(events, carry_on, ahead)
        stale = tuple(event.claim for event in stale_in(events, passed) if isinstance(event, AttemptFinished))
        return Finished(
            claims=tuple(
                claim_of(instance_id, step)
                for instance_id, each in passed.items()
                for step in each.ready
                if step.state is StepState.CLAIMED
            ),
            lost=self._lost(stale),
            stale=stale,
            ahead=() if ahead is None else ahead.reports(passed),
        )

    def _ahead(self, reports: Sequence[Report], carry_on: CarryOn | None) -> Ahead | None:
        """Give what runs steps ahead. One that has lost its worker is committed alone, so that only it is to blame."""
        if carry_on is None or not carry_on.effectless or any(report.claim.losses for report in reports):
            return None
        return Ahead(carry_on, self._briefing, self._turnstile, self.machine)

    def _lost(self, stale: Sequence[Claim]) -> tuple[Claim, ...]:
        """Find the reports that came too late; one that was committed before and reported again is no loss."""
        if not stale:
            return ()
        with self.store.transaction() as tx:
            return tuple(claim for claim in stale if not tx.has_committed(claim))

    def lose(self, claims: Sequence[Claim], reason: str) -> int:
        """Give the steps of a dead worker to others; returns how many of the claims were still current."""
        events: dict[UUID, list[Event]] = {}
        for claim in claims:
            events.setdefault(claim.instance_id, []).append(AttemptLost(claim=claim, reason=reason))
        passed = self.passage.through(events)
        return sum(not decision.is_stale for each in passed.values() for decision in each.decisions)

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Let others have steps that were claimed and not begun."""
        events: dict[UUID, list[Event]] = {}
        for claim in claims:
            events.setdefault(claim.instance_id, []).append(AttemptReturned(claim=claim))
        self.passage.through(events)

    def fire(self, timers: Sequence[Due]) -> int:
        """Go on with nodes whose moment has come; returns how many it was still true for."""
        events: dict[UUID, list[TimerFired]] = {}
        for due in timers:
            events.setdefault(due.instance_id, []).append(TimerFired(key=due.key, due_at=due.due_at))
        passed = self.passage.through(events)
        meant = {
            (instance_id, event.key)
            for instance_id, each in passed.items()
            for event, decision in zip(events[instance_id], each.decisions, strict=True)
            if not decision.is_stale
        }
        spent = [due for due in timers if (due.instance_id, due.key) not in meant]
        if spent:
            with self.store.transaction() as tx:
                tx.drop_timers(spent)
        return len(timers) - len(spent)

    def outputs_seen(self, claim: Claim) -> dict[str, Any]:
        """Read the newest output of every finished block, as the claimed step sees them."""
        return self._briefing.outputs_seen(claim)

    def state_values(self, instance_id: UUID) -> dict[str, Any]:
        """Read the key-value state of an instance."""
        with self.store.transaction() as tx:
            return tx.state_values(instance_id)

    def session_data(self, instance_id: UUID) -> Any:
        """Read the data of an instance's session as they are now; None without a session."""
        with self.store.transaction() as tx:
            return tx.session_data(instance_id)

    def look_at(self, instance_id: UUID, *, tenant_id: str) -> OtherFlow | None:
        """Read what the handlers of another instance may see of one; None if there is none in this tenant."""
        return self._briefing.look_at(instance_id, tenant_id=tenant_id)

    def emit(self, emission: Emission) -> Emitted:
        """Start the flow of a trigger in the name of a step; the same answer whenever the same step asks again.

        Raises:
            RequestError: There is no such trigger in the tenant, it is switched off, or its sequence refuses the data.
        """
        return Emitter(self.store, self).emit(emission)

    def latest_checkpoint(self, instance_id: UUID) -> tuple[Any, datetime] | None:
        """Read the newest checkpoint of an instance; None if it has none."""
        with self.store.transaction() as tx:
            found = tx.newest_checkpoints(instance_id, 1)
        return (found[0][1], found[0][2]) if found else None

    def forget_routes(self) -> None:
        """Have this process read at its next commit what it knows of handlers and routes."""
        self._known.forget()

    def now(self) -> datetime:
        """Give the database's time."""
        return self._turnstile.now()

    def new_id(self) -> UUID:
        """Make an id that sorts by time."""
        return self._turnstile.new_id(self.now())

    def is_current(self, claim: Claim) -> bool:
        """Tell whether a claim still stands: it has not been cancelled, paused or given to another worker."""
        with self.store.transaction() as tx:
            return tx.is_held_by(claim.step_id, claim.token)

    def deliver(self, recipients: Sequence[UUID]) -> int:
        """Have instances open the letters that wait for them; returns how many letters that were."""
        return self.passage.deliver(recipients)
