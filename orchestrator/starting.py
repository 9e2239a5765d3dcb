"""How instances begin: accepted once for each idempotency key, with their first steps decided, in one transaction.

Instances that are alike but for their ids and contexts are decided together where their sequence allows it
(`core/beginning.py`); all others one by one.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

from orchestrator.carry import ReadySteps, hints_for
from orchestrator.core.beginning import common
from orchestrator.core.changes import Change, InstancePut
from orchestrator.core.decider import decide
from orchestrator.core.events import Created
from orchestrator.core.model import Instance
from orchestrator.core.plan import Plan
from orchestrator.core.slice import Needs, Slice
from orchestrator.core.states import InstanceState, StepState
from orchestrator.exchange import Begun, NewInstance, Started
from orchestrator.handlers_known import KnownHandlers
from orchestrator.settings import Settings
from orchestrator.store.creations import Alike, Member
from orchestrator.store.definitions import Head
from orchestrator.store.instances import IdempotencyKey, Profile
from orchestrator.store.interface import Transaction
from orchestrator.turnstile import Turnstile, left_ready
from queues.broker import Hint


class _Accepted(NamedTuple):
    """A request that is no duplicate, and the id of its instance."""

    id: UUID
    request: NewInstance


class Starter:
    """Accepts instances.

    Args:
        rings: Whether hints are sent at all.
    """

    def __init__(self, turnstile: Turnstile, known: KnownHandlers, settings: Settings, *, rings: bool) -> None:
        self._turnstile = turnstile
        self._known = known
        self._settings = settings
        self._rings = rings

    def begin(self, tx: Transaction, requests: Sequence[NewInstance]) -> Begun:
        """Accept instances in a transaction of the caller's, who rings and runs errands after its commit."""
        now = self._turnstile.ask_time(tx)
        started, accepted = self._accept(tx, requests, now)
        plans = self._turnstile.plans(tx, [each.request.sequence_id for each in accepted])
        beginning = self._start(now)
        for group in _groups(accepted):
            beginning.add(tx, plans[group[0].request.sequence_id], group)
        return beginning.written(tx, started)

    def begin_at_once(self, requests: Sequence[NewInstance], seen: Collection[Head]) -> Begun | None:
        """Accept instances and commit them in one message; the caller rings.

        None, and nothing is written, where that takes more than this process has at hand: for instances that do not
        begin alike, if a sequence is no longer as it was seen, if an idempotency key is known, and if the time at hand
        is not the store's.
        """
        now = self._turnstile.time_at_hand()
        keys = [key for request in requests if (key := request.idempotency_key) is not None]
        if now is None or len(set(keys)) < len(keys):
            return None
        plans = self._turnstile.plans_at_hand({request.sequence_id for request in requests})
        beginning = self._start(now)
        accepted = list(map(_Accepted, self._ids_of(requests, now), requests))
        for group in _groups(accepted):
            plan = plans.get(group[0].request.sequence_id)
            if plan is None or not beginning.begin_alike(plan, group):
                return None
        if not self._turnstile.insert_at_once(beginning.alike, seen):
            return None
        return beginning.begun([Started(each.id) for each in accepted])

    def _start(self, now: datetime) -> "_Start":
        # Asked without the store: a second transaction would wait for a connection that the caller holds.
        ready = ReadySteps(None, self._known.latest(), rings=self._rings)
        tick = timedelta(milliseconds=self._settings.tick_interval_ms or 0)
        return _Start(self._turnstile, ready, now, tick)

    def _ids_of(self, requests: Sequence[NewInstance], now: datetime) -> list[UUID]:
        made = self._turnstile.new_ids(now, len(requests))
        return [request.id or new_id for request, new_id in zip(requests, made, strict=True)]

    def _accept(
        self, tx: Transaction, requests: Sequence[NewInstance], now: datetime
    ) -> tuple[list[Started], list[_Accepted]]:
        ids = self._ids_of(requests, now)
        keys = [request.idempotency_key for request in requests]
        first: dict[IdempotencyKey, UUID] = {}
        for instance_id, key in zip(ids, keys, strict=True):
            if key is not None:
                first.setdefault(key, instance_id)
        if not first:
            return list(map(Started, ids)), list(map(_Accepted, ids, requests))
        first |= tx.reserve_keys(first)
        started, accepted = [], []
        for instance_id, key, request in zip(ids, keys, requests, strict=True):
            is_duplicate = key is not None and first[key] != instance_id
            started.append(Started(first[key] if key is not None else instance_id, is_duplicate))
            if not is_duplicate:
                accepted.append(_Accepted(instance_id, request))
        return started, accepted


def _groups(accepted: Iterable[_Accepted]) -> Iterable[list[_Accepted]]:
    """Put together what differs in the id and the profile only."""
    groups: dict[Any, list[_Accepted]] = {}
    for each in accepted:
        budget = each.request.budget
        shape = (_ALIKE(each.request), None if budget is None else frozenset(budget.items()))
        groups.setdefault(shape, []).append(each)
    return groups.values()


_ALIKE: Final = attrgetter(*(set(NewInstance._fields) - {"id", "profile", "budget"}))


class _Start:
    """Decides how new instances begin.

    Args:
        tick: How long after this moment they begin, unless a request says when.
    """

    def __init__(self, turnstile: Turnstile, ready: ReadySteps, now: datetime, tick: timedelta) -> None:
        self.alike: list[Alike] = []
        self._turnstile = turnstile
        self._ready = ready
        self._now = now
        self._tick = tick
        self._facts = turnstile.facts(now)
        self._own: list[tuple[Instance, Profile]] = []
        self._decided: list[tuple[Instance, Sequence[Change]]] = []
        self._begun = Begun(started=[])

    def add(self, tx: Transaction, plan: Plan, group: Sequence[_Accepted]) -> None:
        """Decide how some instances begin that differ in their ids and profiles only."""
        if len(group) == 1 or not self.begin_alike(plan, group):
            for each in group:
                self._alone(tx, plan, each)

    def begin_alike(self, plan: Plan, group: Sequence[_Accepted]) -> bool:
        """Decide how all of such instances begin; False, and nothing is decided, if they do not begin alike."""
        beginning = common(plan, self._new(group[0]), self._not_before(group[0]), self._facts)
        if beginning is None:
            return False
        members, step = self._members(group, len(beginning.transitions)), beginning.step
        hinted = 0
        if step is not None and step.state is StepState.READY:
            hinted = self._ready.rung_of(step, len(members))
            self._begun.hints += [
                Hint(step_id=member.step_id, attempt=step.attempt, queue=step.queue, hint_id=hint_id)
                for member, hint_id in zip(members, self._turnstile.new_ids(self._now, hinted), strict=False)
            ]
        self.alike.append(Alike(beginning=beginning, members=members, hinted=hinted))
        return True

    def written(self, tx: Transaction, started: list[Started]) -> Begun:
        """Write what was decided."""
        tx.insert_alike(self.alike)
        tx.insert_instances(self._own)
        tx.write(self._decided)
        return self.begun(started)

    def begun(self, started: list[Started]) -> Begun:
        """Give what is to be done once it is committed."""
        self._begun.started = started
        return self._begun

    def _not_before(self, accepted: _Accepted) -> datetime | None:
        """Give the moment before which an instance does not begin; None if it begins at once."""
        if accepted.request.not_before is not None or not self._tick:
            return accepted.request.not_before
        return self._now + self._tick

    def _members(self, group: Sequence[_Accepted], transitions: int) -> list[Member]:
        run_ids, step_ids, *audit_ids = (self._turnstile.new_ids(self._now, len(group)) for _ in range(2 + transitions))
        return [
            Member(each.id, run_id, step_id, transition_ids, each.request.profile)
            for each, run_id, step_id, *transition_ids in zip(group, run_ids, step_ids, *audit_ids, strict=True)
        ]

    def _alone(self, tx: Transaction, plan: Plan, accepted: _Accepted) -> None:
        profile, instance = accepted.request.profile, self._new(accepted)
        new = Slice.of_new(plan, instance, profile.data, profile.config, profile.audit, profile.metadata)
        created = Created(not_before=self._not_before(accepted))
        # Of a new instance there is nothing to load but what it shares with others, and sequences that it names.
        while isinstance(decision := decide(new, created, self._facts), Needs):
            tx.fill([(new, decision)])
        changes = self._ready.rewrite(instance.id, decision.changes, self._now)
        self._begun.errands.note(changes)
        self._begun.hints += hints_for(left_ready(changes))
        for change in changes:
            if isinstance(change, InstancePut):
                instance = change.instance
        self._own.append((instance, profile))
        self._decided.append((instance, [each for each in changes if not isinstance(each, InstancePut)]))

    def _new(self, accepted: _Accepted) -> Instance:
        request = accepted.request
        return Instance(
            id=accepted.id,
            tenant_id=request.tenant_id,
            namespace=request.namespace,
            sequence_id=request.sequence_id,
            state=InstanceState.SCHEDULED,
            priority=request.priority,
            timezone=request.timezone,
            run_id=self._turnstile.new_id(self._now),
            dry_run=request.dry_run,
            dry_run_auto_approve=request.dry_run_auto_approve,
            session_id=request.session_id,
            budget=request.budget,
            created_at=self._now,
            updated_at=self._now,
        )
