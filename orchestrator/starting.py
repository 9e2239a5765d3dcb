"""How instances begin: accepted once for each idempotency key, with their first steps decided, in one transaction."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from orchestrator.carry import ReadySteps, hints_for
from orchestrator.core.changes import Change
from orchestrator.core.decider import decide
from orchestrator.core.events import Created
from orchestrator.core.model import Instance
from orchestrator.core.plan import Plan
from orchestrator.core.slice import Needs, Slice
from orchestrator.core.states import InstanceState
from orchestrator.exchange import Begun, NewInstance, Started
from orchestrator.handlers_known import KnownHandlers
from orchestrator.settings import Settings
from orchestrator.store.instances import IdempotencyKey
from orchestrator.store.interface import Transaction
from orchestrator.turnstile import Turnstile, left_ready


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
        # Asked without the store: a second transaction would wait for a connection that this one holds.
        ready = ReadySteps(None, self._known.latest(), rings=self._rings)
        now = tx.now()
        started, accepted = self._accept(tx, requests, now)
        plans = self._turnstile.plans(tx, [request.sequence_id for _, request in accepted])
        tx.insert_instances([(instance, request.profile) for instance, request in accepted])
        decided: list[tuple[Instance, tuple[Change, ...]]] = []
        begun = Begun(started=started)
        for instance, request in accepted:
            changes = self._first_changes(tx, plans[instance.sequence_id], instance, request, now)
            changes = ready.rewrite(instance.id, changes, now)
            decided.append((instance, changes))
            begun.errands.note(changes)
            begun.hints += hints_for(left_ready(changes))
        tx.write(decided)
        return begun

    def _accept(
        self, tx: Transaction, requests: Sequence[NewInstance], now: datetime
    ) -> tuple[list[Started], list[tuple[Instance, NewInstance]]]:
        instances = [self._instance_of(request, now) for request in requests]
        first: dict[IdempotencyKey, UUID] = {}
        for instance, request in zip(instances, requests, strict=True):
            if (key := request.idempotency_key) is not None:
                first.setdefault(key, instance.id)
        first |= tx.reserve_keys(first)
        started, accepted = [], []
        for instance, request in zip(instances, requests, strict=True):
            key = request.idempotency_key
            of_key = instance.id if key is None else first[key]
            if of_key == instance.id:
                accepted.append((instance, request))
            started.append(Started(id=of_key, is_duplicate=of_key != instance.id))
        return started, accepted

    def _instance_of(self, request: NewInstance, now: datetime) -> Instance:
        return Instance(
            id=request.id or self._turnstile.new_id(now),
            tenant_id=request.tenant_id,
            namespace=request.namespace,
            sequence_id=request.sequence_id,
            state=InstanceState.SCHEDULED,
            priority=request.priority,
            timezone=request.timezone,
            run_id=self._turnstile.new_id(now),
            dry_run=request.dry_run,
            dry_run_auto_approve=request.dry_run_auto_approve,
            session_id=request.session_id,
            budget=request.budget,
            created_at=now,
            updated_at=now,
        )

    def _first_changes(
        self, tx: Transaction, plan: Plan, instance: Instance, request: NewInstance, now: datetime
    ) -> tuple[Change, ...]:
        not_before = request.not_before
        if not_before is None and self._settings.tick_interval_ms:
            not_before = now + timedelta(milliseconds=self._settings.tick_interval_ms)
        profile = request.profile
        new = Slice.of_new(plan, instance, profile.data, profile.config, profile.audit, profile.metadata)
        facts = self._turnstile.facts(now)
        # Of a new instance there is nothing to load but what it shares with others, and sequences that it names.
        while isinstance(decision := decide(new, Created(not_before=not_before), facts), Needs):
            tx.fill([(new, decision)])
        return decision.changes
