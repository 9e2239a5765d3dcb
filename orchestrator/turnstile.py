"""Load, decide, apply, commit: the one way a change gets into the store.

Events of any number of instances pass together, in one transaction. An instance whose slice is still in memory is
decided before the transaction opens; if another process has changed the instance meanwhile, its version tells, and it
is loaded and decided again under the lock. Locks are taken in ascending order of instance id. What was decided about
one instance alone is written and committed in one message, which writes nothing if the version is another one.
"""

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from orchestrator.clock import MACHINE_TIME, MachineTime
from orchestrator.core.changes import Change, steps_left
from orchestrator.core.decider import Decision, decide
from orchestrator.core.events import AttemptFinished, AttemptLost, AttemptReturned, Event, MailArrived, TimerFired
from orchestrator.core.facts import Facts
from orchestrator.core.ids import IdMaker
from orchestrator.core.model import ROOT_KEY, Claim, Instance, NodeKey, Step, is_beside
from orchestrator.core.plan import Plan
from orchestrator.core.routing import Routes
from orchestrator.core.slice import Needs, Slice
from orchestrator.core.states import StepState
from orchestrator.errors import SequenceGone
from orchestrator.slices import MAX_SLICES, Plans, Slices
from orchestrator.store.creations import Alike
from orchestrator.store.definitions import Head
from orchestrator.store.interface import Store, Transaction

Events = Mapping[UUID, Sequence[Event]]
Rewrite = Callable[[UUID, tuple[Change, ...], datetime], tuple[Change, ...]]
"""A last look at what a decision leaves ready: to claim a step in the same commit, or to note its hint."""
Rewriting = Callable[[], Rewrite]
"""Begins such looks anew, for one try to commit."""
GoOn = Callable[["Passed"], None]
"""Adds to what was decided about an instance in memory what follows from it at once."""

TRIES = 8


@dataclass(slots=True, kw_only=True)
class Passed:
    """What became of the events of one instance.

    Args:
        current: The instance as it reads after the commit.
        found: The version on which all of it was decided.
        decisions: One for each event, in order.
        ahead: Decisions that followed from these at once.
        ready: Steps that the commit left ready, or claimed for the caller.
    """

    current: Slice
    found: int
    decisions: list[Decision] = field(default_factory=list)
    ahead: list[Decision] = field(default_factory=list)
    ready: list[Step] = field(default_factory=list)

    @property
    def instance(self) -> Instance:
        """The instance after the commit."""
        return self.current.instance

    def changes(self) -> Iterator[Change]:
        """Give everything that was decided, in order."""
        return (change for decision in (*self.decisions, *self.ahead) for change in decision.changes)

    @property
    def written(self) -> list[Step]:
        """Open steps that the decisions write, each as it reads in the end."""
        return steps_left(self.changes())


class Turnstile:
    """Passes events into the store.

    Args:
        max_context_bytes: See `Facts`.
        max_losses: See `Facts`.
        first_wait: See `Facts`.
        webhook_urls: See `Facts`.
        known_handlers: See `Facts`; asked without touching the store.
        routes: See `Facts`; asked in the same way.
        randomness: Where jitter and random numbers come from; None for a source of its own.
        machine: Tells durations, and waits between tries.
        plans: Compiled definitions, if others share them; None for its own.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_context_bytes: int,
        max_losses: int,
        first_wait: timedelta = timedelta(0),
        webhook_urls: tuple[str, ...] = (),
        known_handlers: Callable[[], Collection[str]] = frozenset,
        routes: Callable[[], Routes] = dict,
        randomness: random.Random | None = None,
        machine: MachineTime = MACHINE_TIME,
        plans: Plans | None = None,
    ) -> None:
        self._store = store
        self._slices = Slices()
        self._contended: dict[UUID, int] = {}
        """Instances that other processes work on too, each with its version after the last commit of this one."""
        self._plans = plans or Plans()
        self._clock = store.clock
        self._machine = machine
        self._random = randomness or random.Random()  # noqa: S311 - jitter, not secrets
        self._ids = IdMaker(self._random)
        self._max_context_bytes = max_context_bytes
        self._max_losses = max_losses
        self._first_wait = first_wait
        self._webhook_urls = webhook_urls
        self._known_handlers = known_handlers
        self._routes = routes

    def facts(self, now: datetime) -> Facts:
        """Give what decisions at this moment depend on."""
        return Facts(
            now=now,
            new_id=self._ids,
            random=self._random,
            max_context_bytes=self._max_context_bytes,
            max_losses=self._max_losses,
            first_wait=self._first_wait,
            webhook_urls=self._webhook_urls,
            known_handlers=self._known_handlers(),
            routes=self._routes(),
        )

    def new_id(self, now: datetime) -> UUID:
        """Make an id that sorts by time."""
        return self._ids(now)

    def new_ids(self, now: datetime, count: int) -> list[UUID]:
        """Make some ids that sort by time, in their order."""
        return self._ids.many(now, count)

    def now(self) -> datetime:
        """Give the database's time: as carried forward in this process, or asked for if it was never told."""
        now = self._clock.now()
        if now is None:
            with self._store.transaction() as tx:
                now = self.ask_time(tx)
        return now

    def ask_time(self, tx: Transaction) -> datetime:
        """Ask for the database's time, which is carried forward from there."""
        asked_at = self._machine.monotonic()
        now = tx.now()
        self._clock.set(now, asked_at)
        return now

    def time_at_hand(self) -> datetime | None:
        """Give the database's time as carried forward in this process; None if it was never told."""
        return self._clock.now()

    def plans(self, tx: Transaction, sequence_ids: Sequence[UUID]) -> dict[UUID, Plan]:
        """Give compiled definitions."""
        return self._plans.get(tx, sequence_ids)

    def plans_at_hand(self, sequence_ids: Collection[UUID]) -> dict[UUID, Plan]:
        """Give those compiled definitions that this process has in memory."""
        return self._plans.compiled(sequence_ids)

    def insert_at_once(self, groups: Sequence[Alike], seen: Collection[Head]) -> bool:
        """Insert new instances that begin alike, and commit them, in one message; False if nothing was written.

        Raises:
            StoreUnavailable: The store did not answer; whether the commit took effect is unknown.
        """
        asked_at = self._machine.monotonic()
        with self._store.transaction() as tx:
            written = tx.insert_at_once(groups, seen)
        if written is None:
            return False
        self._clock.set(written.now, asked_at)
        return written.is_current

    def keep(self, current: Slice) -> None:
        """Keep a slice that was loaded for reading."""
        self._slices.keep(current)

    def take(self, instance_id: UUID) -> Slice | None:
        """Take a slice that this process left in memory at its last commit."""
        return self._slices.take(instance_id)

    def pass_through(
        self, events: Events, rewriting: Rewriting | None = None, go_on: GoOn | None = None
    ) -> dict[UUID, Passed]:
        """Decide events and commit what they change; instances that do not exist are left out.

        A definition that is deleted between the decision and the write makes it be decided anew.

        Raises:
            SequenceGone: The definition that a migration leads to does not exist.
            StoreUnavailable: The store did not answer; whether the commit took effect is unknown.
        """
        for attempt in range(TRIES):
            try:
                return self._pass_once(events, rewriting, go_on)
            except SequenceGone as gone:
                self._plans.forget(gone.sequence_id)
                if attempt == TRIES - 1:
                    raise
            except Exception as error:
                if not self._store.is_retryable(error) or attempt == TRIES - 1:
                    raise
                self._machine.sleep(self._random.uniform(0, 0.01 * 2**attempt))
        raise AssertionError("unreachable")

    def _pass_once(self, events: Events, rewriting: Rewriting | None, go_on: GoOn | None) -> dict[UUID, Passed]:
        passed = self._decide_in_memory(events, go_on)
        if not self._is_written_at_once(events, passed, rewriting):
            with self._store.transaction() as tx:
                if passed:
                    now, instances = self._lock(tx, events, passed), None
                else:
                    now, instances = self._lock_and_load(tx, events)
                fresh = [instance_id for instance_id in events if instance_id not in passed]
                if fresh:
                    decided = self._decide_under_lock(tx, {i: events[i] for i in fresh}, now, instances)
                    self._look_for_others(decided)
                    passed |= decided
                self._write(tx, passed, rewriting, now)
        for instance_id, each in passed.items():
            self._slices.keep(each.current)
            if instance_id in self._contended:
                self._contended[instance_id] = each.instance.version
        return passed

    def _look_for_others(self, decided: Mapping[UUID, Passed]) -> None:
        """Take the instances for this process's own again that no other has changed since its last commit."""
        for instance_id, each in decided.items():
            if self._contended.get(instance_id) == each.found:
                self._contended.pop(instance_id, None)

    def _is_written_at_once(self, events: Events, passed: dict[UUID, Passed], rewriting: Rewriting | None) -> bool:
        """Write and commit what was decided about one instance, without locking it first, if that can be done.

        Forgets what was decided if another process has changed the instance. Then others are at work on it, and the
        next time it is locked first.
        """
        now = self._clock.now()
        if len(events) != 1 or not passed or now is None:
            return False
        [(instance_id, each)] = passed.items()
        if instance_id in self._contended:
            self._contended.pop(instance_id, None)
            return False
        decided = _decided(passed, rewriting, now)
        if not decided:
            return False
        asked_at = self._machine.monotonic()
        with self._store.transaction() as tx:
            written = tx.write_at_once(*decided[0], found=each.found, claims=claims_of(events[instance_id]))
        if written is None:
            return False
        self._clock.set(written.now, asked_at)
        if not written.is_current:
            passed.clear()
            if len(self._contended) >= MAX_SLICES:
                self._contended.clear()
            self._contended[instance_id] = each.found
        return written.is_current

    def plan_of(self, tx: Transaction, instance: Instance) -> Plan:
        """Give the compiled plan of an instance, injections included; SequenceGone if its definition is."""
        plans = self._plans.of_instances(tx, [instance])
        if instance.id not in plans:
            raise SequenceGone(instance.sequence_id)
        return plans[instance.id]

    def pass_within(
        self, tx: Transaction, events: Events, now: datetime, rewriting: Rewriting | None = None
    ) -> dict[UUID, Passed]:
        """Decide events in a transaction of the caller's, who holds the instances; nothing stays in memory."""
        passed = self._decide_under_lock(tx, events, now)
        self._write(tx, passed, rewriting, now)
        return passed

    def _decide_in_memory(self, events: Events, go_on: GoOn | None) -> dict[UUID, Passed]:
        now = self._clock.now()
        if now is None:
            return {}
        passed = {}
        for instance_id, sequence in events.items():
            current = self._slices.take(instance_id)
            if len(sequence) > 1 and instance_id in self._contended:
                continue  # decided under the lock, where others have probably changed it since it was loaded
            if current is not None and _ends_claims(current, sequence):
                continue  # whoever has the step by now is told of in its history
            result = decide_all(current, sequence, self.facts(now)) if current is not None else None
            # Claims do not raise the version, so a slice may not know of one: only the store can call a claim stale.
            if result is not None and not any(decision.is_stale for decision in result.decisions):
                if go_on is not None:
                    go_on(result)
                passed[instance_id] = result
        return passed

    def _lock(self, tx: Transaction, events: Events, passed: dict[UUID, Passed]) -> datetime:
        """Lock the instances; forget what was decided on a version, or for a claim, that is no longer current.

        A version is not enough: claims do not raise it, neither when they are made nor when they are given back without
        a decision (the task of a silent poller, a claim that a crash of the database has forgotten).
        """
        claims = {i: claims_of(events[i]) for i in passed}
        asked_at = self._machine.monotonic()
        locked = tx.lock(list(events), [claim.step_id for each in claims.values() for claim in each])
        self._clock.set(locked.now, asked_at)
        for instance_id in list(passed):
            decided = passed[instance_id]
            is_current = locked.versions.get(instance_id) == decided.found
            if not is_current or any(claim.token not in locked.held for claim in claims[instance_id]):
                del passed[instance_id]
        return locked.now

    def _lock_and_load(self, tx: Transaction, events: Events) -> tuple[datetime, dict[UUID, Instance]]:
        asked_at = self._machine.monotonic()
        now, instances = tx.lock_and_load(list(events))
        self._clock.set(now, asked_at)
        return now, instances

    def _decide_under_lock(
        self, tx: Transaction, events: Events, now: datetime, instances: dict[UUID, Instance] | None = None
    ) -> dict[UUID, Passed]:
        """Decide events about locked instances.

        Args:
            instances: As they were loaded with the lock; None to load them now.
        """
        if instances is None:
            instances = tx.load_instances(list(events))
        first = {i: first_needs(sequence) for i, sequence in events.items()}
        slices = self._slices_of(tx, instances, first, lock=True)
        passed: dict[UUID, Passed] = {
            i: Passed(current=current, found=current.instance.version) for i, current in slices.items()
        }
        facts = self.facts(now)
        waiting = dict(passed)
        while waiting:
            needed: list[tuple[Slice, Needs]] = []
            for instance_id, each in list(waiting.items()):
                needs = _decide_further(each, events[instance_id], facts)
                if needs is None:
                    del waiting[instance_id]
                else:
                    needed.append((each.current, needs))
            if needed:
                tx.fill(needed, lock=True)
        return passed

    def foresee(self, tx: Transaction, instance_id: UUID, event: Event) -> Passed | None:
        """Decide an event without writing, or holding, anything; None if there is no such instance."""
        needs = first_needs([event])
        current = self.load(tx, [instance_id], {instance_id: needs}, lock=False).get(instance_id)
        if current is None:
            return None
        passed, facts = Passed(current=current, found=current.instance.version), self.facts(tx.now())
        while (lacking := _decide_further(passed, [event], facts)) is not None:
            tx.fill([(current, lacking)])
        return passed

    def load(
        self, tx: Transaction, ids: Sequence[UUID], needs: Mapping[UUID, Callable[[Plan], Needs]], *, lock: bool
    ) -> dict[UUID, Slice]:
        """Load slices with what is certainly needed; instances that do not exist, or not much longer, are left out."""
        return self._slices_of(tx, tx.load_instances(ids), needs, lock=lock)

    def _slices_of(
        self,
        tx: Transaction,
        instances: Mapping[UUID, Instance],
        needs: Mapping[UUID, Callable[[Plan], Needs]],
        *,
        lock: bool,
    ) -> dict[UUID, Slice]:
        plans = self._plans.of_instances(tx, instances.values())
        slices = {i: Slice(plan=plans[i], instance=found) for i, found in instances.items() if i in plans}
        wanted = [(current, needs[i](current.plan)) for i, current in slices.items()]
        tx.fill([(current, need) for current, need in wanted if need != Needs()], lock=lock)
        return slices

    def slices_at_hand(self, instances: Collection[Instance]) -> list[Slice]:
        """Give slices that hold nothing yet, of those instances whose definitions are compiled in this process."""
        plans = self._plans.at_hand(instances)
        return [Slice(plan=plans[each.id], instance=each) for each in instances if each.id in plans]

    def _write(
        self, tx: Transaction, passed: Mapping[UUID, Passed], rewriting: Rewriting | None, now: datetime
    ) -> None:
        tx.write(_decided(passed, rewriting, now))


def _decided(
    passed: Mapping[UUID, Passed], rewriting: Rewriting | None, now: datetime
) -> list[tuple[Instance, tuple[Change, ...]]]:
    """Give what is to be written, after the last look at it; may be asked again for the same decisions."""
    decided: list[tuple[Instance, tuple[Change, ...]]] = []
    rewrite = None if rewriting is None else rewriting()
    for instance_id in sorted(passed):
        each = passed[instance_id]
        changes = tuple(each.changes())
        if not changes:
            continue
        if rewrite is not None:
            changes = _rewritten(rewrite, instance_id, changes, each, now)
        each.ready = left_ready(changes)
        decided.append((each.current.instance, changes))
    return decided


def _rewritten(
    rewrite: Rewrite, instance_id: UUID, changes: tuple[Change, ...], each: Passed, now: datetime
) -> tuple[Change, ...]:
    rewritten = rewrite(instance_id, changes, now)
    if rewritten is not changes:
        each.current.take(change for change in rewritten[len(changes) :])
    return rewritten


def left_ready(changes: tuple[Change, ...]) -> list[Step]:
    """Give the steps that changes leave ready, or claimed."""
    return [step for step in steps_left(changes) if step.state in {StepState.READY, StepState.CLAIMED}]


def decide_all(current: Slice, events: Sequence[Event], facts: Facts) -> Passed | None:
    """Decide events in memory; None when something would have to be loaded."""
    passed = Passed(current=current, found=current.instance.version)
    return passed if _decide_further(passed, events, facts) is None else None


def _decide_further(passed: Passed, events: Sequence[Event], facts: Facts) -> Needs | None:
    for event in events[len(passed.decisions) :]:
        result = decide(passed.current, event, facts)
        if isinstance(result, Needs):
            return result
        passed.current.take(result.changes)
        passed.decisions.append(result)
    return None


def first_needs(events: Sequence[Event]) -> Callable[[Plan], Needs]:
    """Say what certainly has to be loaded for some events: their nodes, and the composites around them."""
    keys = [_key_of(event) for event in events]
    own = frozenset(key for key in keys if key is not None and key != ROOT_KEY)
    timed = {event.key for event in events if isinstance(event, TimerFired) and event.due_at is not None}
    has_mail = any(isinstance(event, MailArrived) for event in events)

    def needs(plan: Plan) -> Needs:
        known = [key for key in own if key.block_id in plan.places and not is_beside(key)]
        around = frozenset(ancestor for key in known for ancestor in plan.ancestors(key))
        timers = frozenset(key for key in timed if key == ROOT_KEY or plan.is_composite(key.block_id))
        return Needs(steps=own, nodes=around, letters=has_mail, timers=timers)

    return needs


def _ends_claims(current: Slice, events: Sequence[Event]) -> bool:
    """Tell whether the time of a step is up that may be claimed, by whom only the store knows."""
    fired = [current.steps.get(event.key) for event in events if isinstance(event, TimerFired)]
    return any(step is not None and step.state in {StepState.READY, StepState.CLAIMED} for step in fired)


def claims_of(events: Sequence[Event]) -> list[Claim]:
    """Give the claims that events speak for."""
    return [event.claim for event in events if isinstance(event, AttemptFinished | AttemptLost | AttemptReturned)]


def _key_of(event: Event) -> NodeKey | None:
    match event:
        case AttemptFinished(claim=claim) | AttemptLost(claim=claim) | AttemptReturned(claim=claim):
            return claim.key
        case TimerFired(key=key):
            return key
        case _:
            return None
