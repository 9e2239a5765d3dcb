"""Slices in memory between two commits, and the definitions they are compiled from."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from threading import Lock
from typing import Protocol
from uuid import UUID

from orchestrator.core.plan import Plan
from orchestrator.core.slice import Slice
from orchestrator.errors import SequenceGone
from orchestrator.store.interface import Transaction
from sequences.document import parse_definition

MAX_SLICES = 2000
MAX_PLANS = 500


class Planned(Protocol):
    """What tells which plan an instance follows."""

    @property
    def id(self) -> UUID: ...  # noqa: D102
    @property
    def sequence_id(self) -> UUID: ...  # noqa: D102
    @property
    def injected(self) -> int: ...  # noqa: D102


class Slices:
    """Slices of instances this process works on, kept from commit to commit.

    A slice belongs to whoever has taken it: `take` removes it, `keep` gives it back after a commit. One that was not
    given back (its transaction failed, or another process changed the instance) is simply loaded again.
    """

    def __init__(self) -> None:
        self._slices: OrderedDict[UUID, Slice] = OrderedDict()
        self._lock = Lock()

    def take(self, instance_id: UUID) -> Slice | None:
        """Take a slice out; None if there is none."""
        with self._lock:
            return self._slices.pop(instance_id, None)

    def keep(self, current: Slice) -> None:
        """Keep a slice for the next decision, unless its instance has ended."""
        if current.instance.state.is_terminal:
            return
        current.forget_ended()
        with self._lock:
            self._slices[current.instance.id] = current
            while len(self._slices) > MAX_SLICES:
                self._slices.popitem(last=False)


class Plans:
    """Compiled definitions by id. A stored definition never changes, so a plan stays true.

    An instance with injections has a plan of its own; it stays true as long as the instance has the same definition and
    nothing is injected into it.
    """

    def __init__(self) -> None:
        self._plans: OrderedDict[UUID, Plan] = OrderedDict()
        self._own_plans: OrderedDict[tuple[UUID, UUID, int], Plan] = OrderedDict()
        self._lock = Lock()

    def of_instances(self, tx: Transaction, instances: Collection[Planned]) -> dict[UUID, Plan]:
        """Give the plan of each instance, by its id: its definition and what was injected into it.

        An instance whose definition is gone is left out: it goes the same way.
        """
        definitions_of = self._known(tx, {instance.sequence_id for instance in instances})
        instances = [instance for instance in instances if instance.sequence_id in definitions_of]
        plans = {instance.id: definitions_of[instance.sequence_id] for instance in instances}
        grown = [instance for instance in instances if instance.injected]
        return plans | self._with_injections(tx, grown, definitions_of) if grown else plans

    def at_hand(self, instances: Iterable[Planned]) -> dict[UUID, Plan]:
        """Give the plans of those instances whose definition is compiled already and that nothing was injected into."""
        with self._lock:
            return {
                instance.id: plan
                for instance in instances
                if not instance.injected and (plan := self._plans.get(instance.sequence_id)) is not None
            }

    def _with_injections(
        self, tx: Transaction, instances: Sequence[Planned], definitions_of: Mapping[UUID, Plan]
    ) -> dict[UUID, Plan]:
        with self._lock:
            plans = {i.id: self._own_plans[_own(i)] for i in instances if _own(i) in self._own_plans}
        missing = [instance for instance in instances if instance.id not in plans]
        if missing:
            injected = tx.load_injections([instance.id for instance in missing])
            made = {
                instance.id: definitions_of[instance.sequence_id].with_injections(
                    injection for injection in injected.get(instance.id, ()) if injection.number < instance.injected
                )
                for instance in missing
            }
            with self._lock:
                self._own_plans.update({_own(instance): made[instance.id] for instance in missing})
                while len(self._own_plans) > MAX_PLANS:
                    self._own_plans.popitem(last=False)
            plans |= made
        return plans

    def get(self, tx: Transaction, sequence_ids: Iterable[UUID]) -> dict[UUID, Plan]:
        """Give the plans of some definitions, compiling those that are new here.

        Raises:
            SequenceGone: A definition does not exist.
        """
        wanted = set(sequence_ids)
        plans = self._known(tx, wanted)
        if unknown := wanted - plans.keys():
            raise SequenceGone(min(unknown))
        return plans

    def compiled(self, sequence_ids: Iterable[UUID]) -> dict[UUID, Plan]:
        """Give the plans of those definitions that are compiled already."""
        with self._lock:
            return {i: self._plans[i] for i in sequence_ids if i in self._plans}

    def _known(self, tx: Transaction, wanted: set[UUID]) -> dict[UUID, Plan]:
        plans = self.compiled(wanted)
        missing = wanted - plans.keys()
        if missing:
            stored = tx.load_definitions(list(missing))
            compiled = {i: Plan(parse_definition(found.document)) for i, found in stored.items()}
            self._remember(compiled)
            plans |= compiled
        return plans

    def forget(self, sequence_id: UUID) -> None:
        """Drop the plan of a definition that was deleted."""
        with self._lock:
            self._plans.pop(sequence_id, None)

    def _remember(self, compiled: dict[UUID, Plan]) -> None:
        with self._lock:
            self._plans.update(compiled)
            while len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)


def _own(instance: Planned) -> tuple[UUID, UUID, int]:
    return (instance.id, instance.sequence_id, instance.injected)
