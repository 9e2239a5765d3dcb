"""Triggers, and what steps do outside of their flow; the twin of `orchestrator.store.triggers` and `effects`."""

from operator import attrgetter
from uuid import UUID

from orchestrator.core.model import NodeKey
from orchestrator.store.definitions import StoredDefinition
from orchestrator.store.effects import EffectDone
from orchestrator.store.memory.base import Base
from orchestrator.store.triggers import Trigger


def trigger(tx: Base, slug: str) -> Trigger | None:
    """Read a trigger; None if there is none of that slug."""
    return tx.tables.triggers.get(slug)


def newest_definition(
    tx: Base, tenant_id: str, namespace: str, name: str, *, version: int | None = None
) -> StoredDefinition | None:
    """Read the highest version of a name that is not deprecated, or the version given; None if there is none."""
    fitting = [
        each
        for each in tx.tables.definitions.values()
        if (each.tenant_id, each.namespace, each.name) == (tenant_id, namespace, name)
        and (not each.deprecated if version is None else each.version == version)
    ]
    return max(fitting, key=attrgetter("version"), default=None)


def reserve_emission(tx: Base, tenant_id: str, scope: str, key: str, instance_id: UUID) -> UUID | None:
    """Take the key of an emission; the instance that was started under it, None if it was free."""
    name = (tenant_id, scope, key)
    first = tx.tables.emissions.get(name)
    if first is None:
        tx.journal.put(tx.tables.emissions, name, instance_id)
    return first


def effect_of_step(tx: Base, instance_id: UUID, key: NodeKey, run_id: UUID) -> EffectDone | None:
    """Read what a step has done in this run of its instance; None if nothing yet."""
    return tx.tables.effects.get((instance_id, key, run_id))


def insert_effect(tx: Base, done: EffectDone) -> bool:
    """Store the row of an act; False if the step has done it before."""
    name = (done.instance_id, done.key, done.run_id)
    if name in tx.tables.effects:
        return False
    tx.journal.insert(tx.tables.effects, name, done)
    return True
