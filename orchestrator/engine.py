"""The door: every change of an instance comes through here, and every claim.

Each verb is one transaction: load what the event touches, let the core decide, write what it decided, commit. Hints go
out after the commit; nothing waits for them, and nothing is lost with them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from orchestrator import forking
from orchestrator.ahead import Ahead
from orchestrator.briefing import Briefing
from orchestrator.carry import CarryOn, ReadySteps, hints_for
from orchestrator.clock import MACHINE_TIME, MachineTime
from orchestrator.core.changes import BlocksForgotten
from orchestrator.core.decider import Decision
from orchestrator.core.events import (
    AttemptFinished,
    AttemptLost,
    AttemptReturned,
    BatchActed,
    BlocksInjected,
    ContextReplaced,
    Event,
    Migrated,
    Rescheduled,
    ResumedFrom,
    RetryRequested,
    StateForced,
    TimerFired,
)
from orchestrator.core.model import Claim, Instance
from orchestrator.core.signalling import event_of_signal
from orchestrator.core.states import InstanceState, StepState
from orchestrator.emitting import Emission, Emitted, Emitter
from orchestrator.errands import Errands, Messenger
from orchestrator.errors import InvalidArgument, NotFound, PayloadTooLarge
from orchestrator.exchange import (
    Begun,
    Finished,
    Forked,
    NewInstance,
    OtherFlow,
    Report,
    Restart,
    Resumed,
    Started,
    Tally,
    Wish,
    Work,
)
from orchestrator.handlers_known import KnownHandlers
from orchestrator.settings import Settings
from orchestrator.slices import Plans
from orchestrator.starting import Starter
from orchestrator.store.claiming import Worker
from orchestrator.store.interface import Store, Transaction
from orchestrator.store.leases import HeldTask
from orchestrator.store.rows import claim_of
from orchestrator.store.timers import Due
from orchestrator.turnstile import Events, Passed, Turnstile
from queues.broker import Hint
from sequences import document
from sequences.signals import SignalType

AT_ONCE = 100
"""Instances that one transaction of a bulk operation locks."""

Ring = Callable[[Sequence[Hint]], None]
"""Sends hints without making the caller wait."""


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
        self._rings = ring is not None
        self._ring = ring or _ring_nobody
        self._known = KnownHandlers(store, settings.dead_after, machine)
        self._turnstile = Turnstile(
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
        self._starter = Starter(self._turnstile, self._known, settings, rings=self._rings)
        self._briefing = Briefing(store, self._turnstile)
        self._messenger = Messenger(store, self._pass_alone)

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

    def know_handlers(self) -> None:
        """Learn which handlers living workers know, for `begin`, which asks nobody."""
        self._known.names()

    def begin(self, tx: Transaction, requests: Sequence[NewInstance]) -> Begun:
        """Accept instances in a transaction of the caller's, who calls `see_off` after its commit."""
        return self._starter.begin(tx, requests)

    def see_off(self, begun: Begun) -> None:
        """Ring for what new instances have left ready, and start their children."""
        self._ring(begun.hints)
        self._messenger.run(begun.errands)

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
        with self.store.transaction() as tx:
            held = tx.claim_tasks(
                queue=queue or "default",
                is_named=queue is not None,
                handler=handler,
                tenant_id=tenant_id,
                takers=takers,
                rank=rank,
            )
            self._forget(task.claim for task in held)
            self._briefing.prepare_for(tx, [(task.instance_id, task.step) for task in held])
        return held

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
        passed = self._pass(events, carry_on, ahead)
        stale = _stale_claims(events, passed)
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
        passed = self._pass(events)
        return sum(not decision.is_stale for each in passed.values() for decision in each.decisions)

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Let others have steps that were claimed and not begun."""
        events: dict[UUID, list[Event]] = {}
        for claim in claims:
            events.setdefault(claim.instance_id, []).append(AttemptReturned(claim=claim))
        self._pass(events)

    def fire(self, timers: Sequence[Due]) -> int:
        """Go on with nodes whose moment has come; returns how many it was still true for."""
        events: dict[UUID, list[TimerFired]] = {}
        for due in timers:
            events.setdefault(due.instance_id, []).append(TimerFired(key=due.key, due_at=due.due_at))
        passed = self._pass(events)
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
        return self._messenger.deliver(recipients)

    # -- what people do ------------------------------------------------------------------------------------------

    def signal(self, instance_id: UUID, signal: SignalType, payload: Any) -> UUID:
        """Deliver a signal at once; returns its id.

        Raises:
            NotFound: There is no such instance.
            InvalidArgument: The instance has ended, or a nameless answer fits several gates.
        """
        signal_id = self.new_id()
        self._one(instance_id, event_of_signal(signal_id, signal, payload))
        return signal_id

    def signal_many(self, ids: Sequence[UUID], signal: SignalType, payload: Any) -> int:
        """Deliver a signal to many instances, some at a time; returns how many have taken it."""
        return self._tell_many(ids, lambda: event_of_signal(self.new_id(), signal, payload)).applied

    def set_state_of_many(self, ids: Sequence[UUID], state: InstanceState) -> int:
        """Set the state of many instances, whatever theirs is; returns how many there are."""
        return self._tell_many(ids, lambda: StateForced(state=state, is_checked=False)).applied

    def reschedule_many(self, ids: Sequence[UUID], by: timedelta) -> int:
        """Shift what many instances wait for; returns how many were scheduled."""
        return self._tell_many(ids, lambda: Rescheduled(by=by)).applied

    def act_on_many(self, ids: Sequence[UUID], action: str, signal: SignalType | None, payload: Any) -> Tally:
        """Do a batch action to many instances: a signal, or else a retry; each that it changes has an audit row."""

        def event() -> Event:
            inner = event_of_signal(self.new_id(), signal, payload) if signal is not None else RetryRequested()
            return BatchActed(action=action, event=inner)

        return self._tell_many(ids, event)

    def _tell_many(self, ids: Sequence[UUID], event: Callable[[], Event]) -> Tally:
        """Pass one event to each of many instances, some at a time, so that no transaction holds many locks for long.

        What this process remembers of the instances may be old, so it is left aside.
        """
        applied = refused = 0
        for start in range(0, len(ids), AT_ONCE):
            part = ids[start : start + AT_ONCE]
            for instance_id in part:
                self._turnstile.take(instance_id)
            passed = self._pass({instance_id: [event()] for instance_id in part})
            taken = [each.decisions[0].refusal is None for each in passed.values()]
            applied += sum(taken)
            refused += len(taken) - sum(taken)
        return Tally(applied=applied, refused=refused, gone=len(ids) - applied - refused)

    def retry(self, instance_id: UUID) -> None:
        """Reopen a failed instance at its failed step; InvalidArgument in any other state."""
        self._one(instance_id, RetryRequested())

    def resume_from(self, instance_id: UUID, restart: Restart) -> Resumed:
        """Run a root block and all behind it anew.

        Raises:
            NotFound: There is no such instance.
            InvalidArgument: It is neither paused nor has ended, or the block is not in its root list.
            PayloadTooLarge: The data do not fit into the context.
        """
        passed = self._one(instance_id, self._resumed_from(restart))
        forgotten = (change for change in passed.decisions[0].changes if isinstance(change, BlocksForgotten))
        return Resumed(instance=passed.instance, outputs_deleted=sum(change.rows for change in forgotten))

    def fork(self, instance_id: UUID, restart: Restart, *, dry_run: bool) -> Forked:
        """Start a copy of an instance, whatever its state, that goes on from a root block.

        Raises:
            NotFound: There is no such instance.
            InvalidArgument: The block is not in its root list.
            PayloadTooLarge: The data do not fit into the context.
        """
        event = self._resumed_from(restart, is_copy=True)
        self.know_handlers()
        with self.store.transaction() as tx:
            now = tx.lock([instance_id], []).now
            source = tx.load_instances([instance_id]).get(instance_id)
            if source is None:
                raise NotFound(f"instance {instance_id}")
            plan = self._turnstile.plan_of(tx, source)
            copied, rerun = forking.split(plan, restart.block_id)
            made = forking.copy(
                tx, source, plan, restart.block_id, dry_run=dry_run, new_id=lambda: self._turnstile.new_id(now)
            )
            passed = self.pass_within(tx, made.id, event, now)
        self.follow_up(passed)
        return Forked(instance=passed.instance, copied=copied, rerun=rerun)

    def pass_within(self, tx: Transaction, instance_id: UUID, event: Event, now: datetime) -> Passed:
        """Let an instance take an event in a transaction of the caller's, who holds it; `follow_up` comes after.

        Raises:
            InvalidArgument: It cannot take the event as it stands.
        """
        self._turnstile.take(instance_id)
        known = self._known.latest()
        passed = self._turnstile.pass_within(
            tx, {instance_id: [event]}, now, lambda: ReadySteps(None, known, rings=self._rings).rewrite
        )[instance_id]
        if passed.decisions[0].refusal is not None:
            raise _refused(passed.decisions[0])
        return passed

    def follow_up(self, passed: Passed) -> None:
        """Ring for what `pass_within` has left ready, and start its children, after the commit."""
        self._ring(hints_for(passed.ready))
        self._messenger.run(Errands.of({passed.instance.id: passed}))

    def foresee(self, tx: Transaction, instance_id: UUID, event: Event) -> Passed | None:
        """Say what would become of an instance that takes an event; nothing is written. None if it cannot take it."""
        passed = self._turnstile.foresee(tx, instance_id, event)
        return None if passed is None or passed.decisions[0].refusal is not None else passed

    def _resumed_from(self, restart: Restart, *, is_copy: bool = False) -> ResumedFrom:
        signals = tuple(event_of_signal(self.new_id(), signal, payload) for signal, payload in restart.signals)
        return ResumedFrom(block_id=restart.block_id, data=restart.data, signals=signals, is_copy=is_copy)

    def set_state(self, instance_id: UUID, state: InstanceState, not_before: datetime | None = None) -> None:
        """Set the state of an instance by hand; InvalidArgument for a move that the table does not allow."""
        self._one(instance_id, StateForced(state=state, not_before=not_before))

    def replace_context(self, instance_id: UUID, data: Any, config: Any) -> None:
        """Replace the data and config sections, in any state."""
        self._one(instance_id, ContextReplaced(data=data, config=config))

    def migrate(self, instance_id: UUID, sequence_id: UUID) -> None:
        """Let an instance go over to another definition, whatever it is doing.

        Raises:
            NotFound: There is no such instance, or no such definition.
            InvalidArgument: The instance has ended.
        """
        self._one(instance_id, self._migrated(sequence_id))

    def migrate_many(self, ids: Sequence[UUID], sequence_id: UUID) -> Tally:
        """Let many instances go over to another definition; those that have ended stay where they are."""
        event = self._migrated(sequence_id)
        return self._tell_many(ids, lambda: event)

    def _migrated(self, sequence_id: UUID) -> Event:
        with self.store.transaction() as tx:
            plan = self._turnstile.plans(tx, [sequence_id])[sequence_id]
        return Migrated(sequence_id=sequence_id, plan=plan)

    def inject(self, instance_id: UUID, blocks: tuple[document.Block, ...], position: int | None = None) -> Instance:
        """Let blocks join the root list of an instance, in any state; returns the instance as it then reads.

        Raises:
            NotFound: There is no such instance.
            InvalidArgument: An id is taken.
        """
        return self._one(instance_id, BlocksInjected(blocks=blocks, position=position)).instance

    def _one(self, instance_id: UUID, event: Event) -> Passed:
        self._turnstile.take(instance_id)
        passed = self._pass({instance_id: [event]})
        if instance_id not in passed:
            raise NotFound(f"instance {instance_id}")
        refusal = passed[instance_id].decisions[0].refusal
        if refusal is not None:
            raise _refused(passed[instance_id].decisions[0])
        return passed[instance_id]

    # -- passing -------------------------------------------------------------------------------------------------

    def _pass(self, events: Events, carry_on: CarryOn | None = None, ahead: Ahead | None = None) -> dict[UUID, Passed]:
        passed = self._pass_alone(events, carry_on, ahead)
        self._messenger.run(Errands.of(passed))
        return passed

    def _pass_alone(
        self, events: Events, carry_on: CarryOn | None = None, ahead: Ahead | None = None
    ) -> dict[UUID, Passed]:
        known = self._known.names()
        passed = self._turnstile.pass_through(
            events,
            lambda: ReadySteps(carry_on, known, rings=self._rings).rewrite,
            None if ahead is None else ahead.go_on,
        )
        left = [step for each in passed.values() for step in each.ready]
        self._ring(hints_for(sorted(left, key=lambda step: (-step.priority, step.ready_at or step.entered_at))))
        return passed


def _refused(decision: Decision) -> InvalidArgument | PayloadTooLarge:
    reason = decision.refusal or ""
    return PayloadTooLarge(reason) if decision.is_too_large else InvalidArgument(reason)


def _ring_nobody(_hints: Sequence[Hint]) -> None:
    pass


def _stale_claims(events: Mapping[UUID, Sequence[Event]], passed: Mapping[UUID, Passed]) -> tuple[Claim, ...]:
    return tuple(
        event.claim
        for instance_id, each in passed.items()
        for event, decision in zip(events[instance_id], each.decisions, strict=True)
        if decision.is_stale and isinstance(event, AttemptFinished)
    )
