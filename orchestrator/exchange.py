"""What is handed through the door: requests for instances, wishes for work, work, and reports of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from orchestrator.core.model import Claim, Instance
from orchestrator.core.outcomes import Failed, LogLine, Outcome
from orchestrator.core.states import InstanceState
from orchestrator.errands import Errands
from orchestrator.log_lines import LogBuffer
from orchestrator.store.instances import IdempotencyKey, Profile
from queues.broker import Hint
from sequences import document
from sequences.scope import Scope
from sequences.signals import SignalType


class NewInstance(NamedTuple):
    """A request for one instance; its sequence exists and its data fit the sequence's `input_schema`."""

    sequence_id: UUID
    tenant_id: str
    namespace: str
    profile: Profile = Profile()
    priority: int = 1
    timezone: str = "UTC"
    dry_run: bool = False
    dry_run_auto_approve: bool = False
    not_before: datetime | None = None
    session_id: UUID | None = None
    budget: Mapping[str, int] | None = None
    id: UUID | None = None

    @property
    def idempotency_key(self) -> IdempotencyKey | None:
        """What no other instance may be started with; None if any number may."""
        key = self.profile.idempotency_key
        return None if key is None else IdempotencyKey(self.tenant_id, self.dry_run, key)

    def under(self, instance_id: UUID) -> "NewInstance":
        """Give the request for an instance of a certain id; without one it gets an id when it is accepted."""
        return self._replace(id=instance_id)


class Started(NamedTuple):
    """An accepted instance; `is_duplicate` when its idempotency key was known and this is the first one's id."""

    id: UUID
    is_duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherFlow:
    """An instance as the handlers of another one see it.

    Args:
        context: As clients read it.
        ended_at: None until it has ended.
        current_node: The newest block that has not ended, after the end the last one.
    """

    state: InstanceState
    context: dict[str, Any]
    created_at: datetime
    ended_at: datetime | None
    current_node: str | None


@dataclass(slots=True, kw_only=True)
class Begun:
    """Instances accepted in a transaction that is not committed yet, and what is to be done once it is."""

    started: list[Started]
    hints: list[Hint] = field(default_factory=list)
    errands: Errands = field(default_factory=Errands)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a bulk operation came to.

    Args:
        applied: Instances it was done to.
        refused: Instances in a state it means nothing in.
        gone: Instances that no longer exist.
    """

    applied: int
    refused: int
    gone: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Where an instance, or a copy of it, goes on, and what it is told before.

    Args:
        block_id: A root block.
        data: Laid over the top-level keys of `context.data`.
        signals: Types and payloads, in the order they are delivered.
    """

    block_id: str
    data: Mapping[str, Any] = field(default_factory=dict)
    signals: Sequence[tuple[SignalType, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """An instance that goes on from a block, and how many output rows were dropped for it."""

    instance: Instance
    outputs_deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """A copy that goes on from a block: the root blocks it has behind it, and those it runs."""

    instance: Instance
    copied: tuple[str, ...]
    rerun: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a worker would like to claim.

    Args:
        handlers: All handlers it knows.
        together: Those of which several steps may be claimed at once: they never block one another.
        readers: Those that are given the context of their instance: it is loaded with the claim.
        limit: Steps claimed at the most.
    """

    queue: str
    handlers: Sequence[str]
    together: frozenset[str] = frozenset()
    readers: Collection[str] = ()
    limit: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a claim, and what its handler has logged."""

    claim: Claim
    outcome: Outcome
    logs: tuple[LogLine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The result of reporting.

    Args:
        claims: Steps claimed for the reporting worker in the same commit.
        lost: Claims that had ended before; their results were dropped.
        stale: Claims whose reports changed nothing: the lost ones, and those with an outcome committed before.
        ahead: Steps that followed and were run, and stored, in the same commit.
    """

    claims: tuple[Claim, ...] = ()
    lost: tuple[Claim, ...] = ()
    stale: tuple[Claim, ...] = ()
    ahead: tuple[Report, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A claim with all that its handler needs.

    Args:
        failure: The inputs could not be made: report this instead of running the handler.
        scope: What the step sees; with whole context sections for handlers that are not built in.
        secrets: What the params hold of credentials; nobody else may see it.
        log: Where its handler logs, to be reported with the outcome.
    """

    claim: Claim
    block: document.Step
    instance: Instance
    sequence_name: str
    params: Any = field(default=None, repr=False)
    scope: Scope = field(default_factory=Scope)
    failure: Failed | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    log: LogBuffer = field(default_factory=LogBuffer, repr=False, compare=False)
