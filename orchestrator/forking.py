"""Copies of instances: a new one that has behind it what another one has in front of a block (contract §9.9).

A fork is such a copy, and then a resume of it: what follows from the block named is decided by the same code. The copy
keeps what the source is: its tenant, priority, budget, context, session, concurrency key, and whether its gates are
answered by themselves. It has nothing of what makes the source unique: its idempotency key, its parent, its counters.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from orchestrator.core import resumption
from orchestrator.core.model import Instance
from orchestrator.core.plan import Plan
from orchestrator.core.states import InstanceState
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.store.instances import Profile
from orchestrator.store.interface import Transaction

_OF_A_PAUSE: Final = frozenset({"paused_reason", "budget_breach"})
"""What the engine writes into the metadata of a flow that it has paused: no news of its copy."""


def split(plan: Plan, block_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the root blocks that are copied, and those that are run; InvalidArgument if there is no such root block."""
    try:
        return resumption.split(plan, block_id)
    except resumption.NotARootBlock as error:
        raise InvalidArgument(str(error)) from error


def copy_of(source: Instance, *, copy_id: UUID, run_id: UUID, now: datetime, dry_run: bool) -> Instance:
    """Give a new instance that is like another one and has done nothing yet."""
    return Instance(
        id=copy_id,
        tenant_id=source.tenant_id,
        namespace=source.namespace,
        sequence_id=source.sequence_id,
        state=InstanceState.SCHEDULED,
        priority=source.priority,
        timezone=source.timezone,
        injected=source.injected,
        run_id=run_id,
        dry_run=dry_run,
        dry_run_auto_approve=source.dry_run_auto_approve,
        session_id=source.session_id,
        budget=source.budget,
        created_at=now,
        updated_at=now,
    )


def metadata_of(metadata: Any, *, source_id: UUID, block_id: str, dry_run: bool) -> dict[str, Any]:
    """Give the metadata of a copy: the source's, and where it comes from."""
    known = metadata if isinstance(metadata, dict) else {}
    kept = {name: value for name, value in known.items() if name not in _OF_A_PAUSE}
    return {**kept, "forked_from": str(source_id), "forked_at_block": block_id, "sandbox": dry_run}


def copy(
    tx: Transaction, source: Instance, plan: Plan, block_id: str, *, dry_run: bool, new_id: Callable[[], UUID]
) -> Instance:
    """Store a copy of an instance as it stands in front of a block. The caller holds the lock of the source.

    Raises:
        NotFound: The instance is gone.
        InvalidArgument: The block is not in its root list.
    """
    earlier, _ = split(plan, block_id)
    seen = tx.look_at(source.id, source.tenant_id)
    if seen is None:
        raise NotFound(f"instance {source.id}")
    made = copy_of(source, copy_id=new_id(), run_id=new_id(), now=tx.now(), dry_run=dry_run)
    metadata = metadata_of(seen.record.profile.metadata, source_id=source.id, block_id=block_id, dry_run=dry_run)
    tx.insert_instances([(made, _profile_of(seen.record.profile, metadata))])
    tx.copy_rows(source.id, made.id, resumption.everything_in(plan, earlier), new_id)
    return made


def _profile_of(profile: Profile, metadata: dict[str, Any]) -> Profile:
    return profile._replace(metadata=metadata, idempotency_key=None, parent_instance_id=None)
