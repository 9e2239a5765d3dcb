"""What handlers are given: their inputs, and what they ask for while they run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from orchestrator import bindings
from orchestrator.core.asides import block_of_claim
from orchestrator.core.inputs import InputError, prepare
from orchestrator.core.model import Claim, Instance, ItemKey, NodeKey, Step, is_beside
from orchestrator.core.outcomes import Failed, FailureKind
from orchestrator.core.plan import Plan
from orchestrator.core.sections import context_view, runtime_section
from orchestrator.core.slice import Needs, Slice, Unloaded
from orchestrator.core.steps import runs_in_process
from orchestrator.core.turn import Turn
from orchestrator.core.values import replace
from orchestrator.errors import SequenceGone
from orchestrator.exchange import OtherFlow, Work
from orchestrator.store.claiming import Taken, TakenTasks
from orchestrator.store.interface import Store, Transaction
from orchestrator.turnstile import Turnstile
from sequences.document import ForEach
from sequences.references import ALL, References

_LOADS_AHEAD = 4
_WHOLE_CONTEXT = Needs(context=True, audit=True)
"""What the inputs of a handler that is not built in are certainly made of."""


class Briefing:
    """Reads for handlers, from what the process remembers of an instance if it can."""

    def __init__(self, store: Store, turnstile: Turnstile) -> None:
        self._store = store
        self._turnstile = turnstile

    def remember(self, taken: Taken | TakenTasks) -> None:
        """Keep what was loaded with the claims of steps, as far as their definitions are known here.

        And load the composites around the steps, which the ends of these will be told to: then they are decided in
        memory; and the items they are run for. What else their inputs need, and definitions that this process has not
        compiled yet, `inputs` loads.
        """
        known = self._slices_of(taken.steps, taken.instances)
        for current in known:
            if found := taken.contexts.get(current.instance.id):
                current.context, current.audit = found
        if wanted := _with_composites(known):
            with self._store.transaction(is_single=True) as tx:
                tx.fill(wanted)
        for current in known:
            self._turnstile.keep(current)

    def _slices_of(self, claimed: Sequence[tuple[UUID, Step]], instances: Mapping[UUID, Instance]) -> list[Slice]:
        steps: dict[UUID, list[Step]] = {}
        for instance_id, step in claimed:
            steps.setdefault(instance_id, []).append(step)
        known = self._turnstile.slices_at_hand(instances.values())
        for current in known:
            current.steps.update({step.key: step for step in steps[current.instance.id]})
        return known

    def inputs(self, claims: Sequence[Claim]) -> list[Work]:
        """Build what the handlers of some claims are given; claims whose instance is gone are left out."""
        slices: dict[UUID, Slice] = {}
        for claim in claims:
            if claim.instance_id not in slices and (known := self._turnstile.take(claim.instance_id)) is not None:
                slices[claim.instance_id] = known
        work: dict[UUID, Work] = {}
        missing = self._prepare(claims, slices, work)
        if missing:
            with self._store.transaction() as tx:
                while missing:
                    self._load_for(tx, missing, slices)
                    lacking = self._prepare([c for c, _ in missing if c.instance_id in slices], slices, work)
                    # What still lacks what was just loaded belongs to an instance that has gone since it was claimed.
                    missing = [each for each in lacking if each not in missing]
        for current in slices.values():
            self._turnstile.keep(current)
        return [work[claim.token] for claim in claims if claim.token in work]

    def _prepare(
        self, claims: Sequence[Claim], slices: Mapping[UUID, Slice], work: dict[UUID, Work]
    ) -> list[tuple[Claim, Needs | None]]:
        """Build inputs as far as what is loaded allows; returns the claims for which more is needed."""
        missing: list[tuple[Claim, Needs | None]] = []
        for claim in claims:
            current = slices.get(claim.instance_id)
            if current is None:
                missing.append((claim, None))
                continue
            if current.context is None and not runs_in_process(claim.handler):
                missing.append((claim, _WHOLE_CONTEXT))
                continue
            try:
                work[claim.token] = self._work(current, claim)
            except Unloaded as unloaded:
                missing.append((claim, unloaded.needs))
        return missing

    def work_ahead(self, current: Slice, claim: Claim, *, may_load: bool) -> Work | None:
        """Build what the handler of a claim is given by a slice that tells more than is stored; None if it lacks much.

        Args:
            may_load: Whether the slice still knows all that it was told and that is not stored yet. Then outputs, state
                and context may be read beside it. Items, sessions and metadata it does not know for sure.
        """
        for _ in range(_LOADS_AHEAD):
            try:
                return self._work(current, claim)
            except Unloaded as unloaded:
                needs = unloaded.needs
                if not may_load or needs != Needs(outputs=needs.outputs, state=needs.state, context=needs.context):
                    return None
                with self._store.transaction() as tx:
                    tx.fill([(current, needs)])
        return None

    def _work(self, current: Slice, claim: Claim) -> Work:
        turn = Turn(current, self._turnstile.facts(current.instance.updated_at))
        step = turn.step(claim.key)
        work = Work(
            claim=claim,
            block=block_of_claim(turn, claim),
            instance=current.instance,
            sequence_name=current.plan.definition.name,
        )
        if step is None or step.token != claim.token:
            lost = Failed(message="the claim has ended", retryable=True, kind=FailureKind.LOST)
            return replace(work, failure=lost)
        try:
            inputs = prepare(turn, claim.key, whole_context=not runs_in_process(claim.handler))
        except InputError as error:
            return replace(work, failure=Failed(message=str(error), retryable=False, kind=FailureKind.INPUT))
        return replace(work, params=inputs.params, scope=inputs.scope)

    def _load_for(
        self, tx: Transaction, missing: Sequence[tuple[Claim, Needs | None]], slices: dict[UUID, Slice]
    ) -> None:
        unknown: dict[UUID, set[NodeKey]] = {}
        for claim, needs in missing:
            if needs is None:
                unknown.setdefault(claim.instance_id, set()).add(claim.key)
        if unknown:
            first = {i: _steps_needed(keys) for i, keys in unknown.items()}
            slices |= self._turnstile.load(tx, list(unknown), first, lock=False)
        wanted = [(slices[claim.instance_id], needs) for claim, needs in missing if needs is not None]
        if wanted:
            tx.fill(wanted)

    def outputs_seen(self, claim: Claim) -> dict[str, Any]:
        """Read the newest output of every finished block, as the claimed step sees them."""
        with self._store.transaction() as tx:
            needs = {claim.instance_id: _steps_needed([claim.key])}
            current = self._turnstile.load(tx, [claim.instance_id], needs, lock=False)[claim.instance_id]
            while True:
                turn = Turn(current, self._turnstile.facts(current.instance.updated_at))
                try:
                    return dict(turn.scope(claim.key, References(outputs=ALL)).outputs)
                except Unloaded as unloaded:
                    tx.fill([(current, unloaded.needs)])

    def look_at(self, instance_id: UUID, *, tenant_id: str) -> OtherFlow | None:
        """Read what the handlers of another instance may see of one; None if there is none in this tenant."""
        with self._store.transaction() as tx:
            seen = tx.look_at(instance_id, tenant_id)
            if seen is None:
                return None
            try:
                plan = self._turnstile.plan_of(tx, seen.record.instance)
            except SequenceGone:
                return None
            [record] = bindings.laid_over(tx, {instance_id: plan}, [seen.record])
        instance, profile = record.instance, record.profile
        runtime = runtime_section(instance, attempt=record.attempt)
        return OtherFlow(
            state=instance.state,
            context=context_view(profile.data, profile.config, runtime, audit=profile.audit),
            created_at=instance.created_at,
            ended_at=seen.ended_at,
            current_node=seen.newest_block or instance.current_step or plan.root[0],
        )


def _with_composites(known: Iterable[Slice]) -> list[tuple[Slice, Needs]]:
    return [
        (current, Needs(nodes=around, items=_items_of(current)))
        for current in known
        if (around := _composites_around(current))
    ]


def _composites_around(current: Slice) -> frozenset[NodeKey]:
    places = current.plan.places
    return frozenset(
        around
        for key in current.steps
        if key.block_id in places and not is_beside(key)
        for around in current.plan.ancestors(key)
    )


def _items_of(current: Slice) -> frozenset[ItemKey]:
    """Give the items of the for_eachs around the steps: whatever a step reads, they are laid over its data."""
    places = current.plan.places
    return frozenset(
        ItemKey(NodeKey(loop_id, key.iteration[:depth]), index)
        for key in current.steps
        if key.block_id in places and not is_beside(key)
        for depth, (loop_id, index) in enumerate(zip(places[key.block_id].loops, key.iteration, strict=False))
        if isinstance(places[loop_id].block, ForEach)
    )


def _steps_needed(keys: Iterable[NodeKey]) -> Callable[[Plan], Needs]:
    wanted = frozenset(keys)
    return lambda _plan: Needs(steps=wanted)
