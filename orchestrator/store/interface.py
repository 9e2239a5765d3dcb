"""What the engine asks of a store: the one way in which engine code reaches the truth.

`Engine`, `Turnstile`, `Plans`, `Timers`, `Reconciler` and the worker's supervisor know these two protocols and nothing
of SQL. Two stores keep them: PostgreSQL (`postgres.py`), and memory (`memory/`) for `orchestrator.testing`.

A new verb has three homes, one line or method in each: its signature here, with what it promises; the function with
the SQL in the module of its subject, named in `PostgresTransaction`; its twin in `MemoryTransaction`. The conformance
tests (`tests/integration/store_conformance`) run the same cases against both.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from orchestrator.core.changes import Change
from orchestrator.core.model import Claim, Instance, NodeKey
from orchestrator.core.plan import Injection
from orchestrator.core.routing import Routes
from orchestrator.core.slice import Needs, Slice
from orchestrator.store.claiming import Taken, TakenTasks, Worker
from orchestrator.store.creations import Alike
from orchestrator.store.definitions import Head as SequenceHead
from orchestrator.store.definitions import StoredDefinition
from orchestrator.store.effects import EffectDone
from orchestrator.store.fence import Written
from orchestrator.store.hints import Head
from orchestrator.store.instances import IdempotencyKey, Profile, Seen
from orchestrator.store.timers import Due
from orchestrator.store.triggers import Trigger
from orchestrator.store.upkeep import Leftovers
from orchestrator.store.workers import Beat


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What locking instances has shown.

    Args:
        now: The store's time.
        versions: Of the instances that exist.
        held: Tokens of those of the asked-for steps that are claimed.
    """

    now: datetime
    versions: Mapping[UUID, int]
    held: frozenset[UUID]


class Clock(Protocol):
    """The store's time as seen from this process, without asking it."""

    def set(self, now: datetime, asked_at: float) -> None:
        """Take over a time the store has just told; `asked_at` is `time.monotonic()` before the question."""

    def now(self) -> datetime | None:
        """Give the store's time, None before it was told once."""


class Transaction(Protocol):
    """One open transaction. All it writes is committed together, or not at all."""

    def now(self) -> datetime:
        """Give the store's time, aware UTC."""

    # -- instances: loading, deciding, writing --------------------------------------------------------------------

    def lock(self, ids: Sequence[UUID], step_ids: Sequence[UUID]) -> Locked:
        """Hold instances until the transaction ends, in ascending order of id; tell which steps are claimed."""

    def lock_and_load(self, ids: Sequence[UUID]) -> tuple[datetime, dict[UUID, Instance]]:
        """Hold instances as `lock` does, and load them as they are then; with the store's time."""

    def load_instances(self, ids: Iterable[UUID]) -> dict[UUID, Instance]:
        """Load instances; ids that do not exist are left out."""

    def fill(self, wanted: Sequence[tuple[Slice, Needs]], *, lock: bool = False) -> None:
        """Put into each slice what it needs; what does not exist is marked as absent.

        What a slice knows already stays. `lock` holds the step rows that are read: no worker claims them meanwhile.
        """

    def write(self, decided: Iterable[tuple[Instance, Iterable[Change]]]) -> None:
        """Write what was decided about instances, each as it reads after it. The caller has locked them.

        Raises:
            SequenceGone: A definition that an instance needs from here on has been deleted.
        """

    def write_at_once(
        self, instance: Instance, changes: Iterable[Change], *, found: int, claims: Sequence[Claim]
    ) -> Written | None:
        """Write and commit what was decided about one instance, if its version and its claims are as they were found.

        Nothing else may have been asked in the transaction, or be asked after it. Gives None, and does nothing, for
        what can only be written to an instance that is locked.
        """

    def insert_instances(self, new: Sequence[tuple[Instance, Profile]]) -> None:
        """Insert new instances, each as it reads; whatever else they have is written after it.

        Raises:
            SequenceGone: A sequence has been deleted.
        """

    def insert_alike(self, groups: Iterable[Alike]) -> None:
        """Insert new instances that begin alike, as they are after their first decision.

        Raises:
            SequenceGone: A sequence has been deleted.
        """

    def insert_at_once(self, groups: Iterable[Alike], seen: Iterable[SequenceHead]) -> Written | None:
        """Insert and commit new instances that begin alike, and take their idempotency keys; none may occur twice.

        Nothing is written if a sequence is no longer as it was seen, somebody has a key already, or they begin at
        another moment than about now. Nothing else may have been asked in the transaction, or be asked after it. Gives
        None, and does nothing, for what can only be written in several messages.
        """

    def copy_rows(self, source_id: UUID, copy_id: UUID, blocks: Sequence[str], new_id: Callable[[], UUID]) -> None:
        """Give a new instance what another one has: of some blocks the ended nodes, outputs, items; injections; state.

        Rows of failures and what was written beside the flow stay behind. Outputs get ids of their own, in their order.
        """

    def reserve_keys(self, wanted: Mapping[IdempotencyKey, UUID]) -> dict[IdempotencyKey, UUID]:
        """Take idempotency keys for new instances; gives the instances that had some of them already."""

    def look_at(self, instance_id: UUID, tenant_id: str) -> Seen | None:
        """Read what another instance may see of one; None if there is none in this tenant."""

    def items_in_progress(self, instance_ids: Sequence[UUID]) -> dict[UUID, list[tuple[NodeKey, Any]]]:
        """Read the items of open for_eachs that have just one in progress, outer ones and older ones first."""

    def load_definitions(self, ids: Sequence[UUID]) -> dict[UUID, StoredDefinition]:
        """Read versions of sequences by id; unknown ids are left out."""

    def load_injections(self, instance_ids: Sequence[UUID]) -> dict[UUID, list[Injection]]:
        """Read what was injected into instances, in order; instances without any are left out."""

    def state_values(self, instance_id: UUID) -> dict[str, Any]:
        """Read the whole key-value state of an instance."""

    def session_data(self, instance_id: UUID) -> Any:
        """Read the data of the session that an instance is bound to; None if it is bound to none."""

    def newest_checkpoints(self, instance_id: UUID, limit: int) -> list[tuple[UUID, Any, datetime]]:
        """Read checkpoints of an instance, the newest first: id, data, created_at."""

    # -- claims ----------------------------------------------------------------------------------------------------

    def claim_one(self, step_id: UUID, handlers: Sequence[str], worker: Worker) -> Claim | None:
        """Claim a certain step; None if it is no longer ready, or its handler is not among those."""

    def claim_ready(
        self,
        queue: str,
        handlers: Sequence[str],
        worker: Worker,
        *,
        step_id: UUID | None = None,
        together: Collection[str] = (),
        readers: Collection[str] = (),
        limit: int = 1,
        alive_within: timedelta | None = None,
    ) -> Taken:
        """Claim ready steps of a queue and some handlers, and load their instances as they then are, at once.

        And the contexts of instances with a step of one of the `readers` among them; and what `handlers_and_routes`
        reads, if a time is given.

        First the step that a hint names, unless one of a higher priority could be had, else the most urgent. More of
        them, up to the limit, only if that one and they are of handlers that can be run together.
        """

    def most_urgent(self, queues: Sequence[str], handlers: Sequence[str]) -> int:
        """Give the highest priority among ready steps of some queues and handlers; -1 if there is none."""

    def claim_tasks(
        self,
        *,
        queue: str,
        is_named: bool,
        handler: str,
        tenant_id: str | None,
        takers: Sequence[str],
        rank: Sequence[int] | None = None,
    ) -> TakenTasks:
        """Claim tasks for workers that poll over HTTP, and load their instances as they then are, at once.

        The oldest first; `takers` names the worker of each.
        """

    def claims_of(self, worker_id: UUID) -> list[Claim]:
        """List the claims of one worker process."""

    def claims_of_slots(self, worker_id: UUID) -> list[tuple[int, Claim]]:
        """List the claims of one worker process with the child that holds each."""

    def lost_claims(self, dead_after: timedelta, limit: int) -> list[Claim]:
        """List claims of worker processes that have stopped their heartbeat, or have left no row at all."""

    def release_stale_tasks(self, stale_after: timedelta, limit: int) -> int:
        """Give tasks of silent HTTP workers back to their queue; returns how many."""

    def is_held_by(self, step_id: UUID, token: UUID) -> bool:
        """Tell whether a claim still stands."""

    def has_committed(self, claim: Claim) -> bool:
        """Tell whether the outcome of this very claim is stored already."""

    # -- hints -----------------------------------------------------------------------------------------------------

    def heads(self, handlers: Sequence[str], again_after: timedelta, limit: int) -> list[Head]:
        """List ready steps of known handlers that have no hint out, or whose hint is older than `again_after`.

        At most `limit` for each queue, in claiming order.
        """

    def has_ready_steps(self) -> bool:
        """Tell whether any step is ready, hinted or not."""

    def outstanding_hints(self, fresh_for: timedelta) -> dict[str, int]:
        """Count, for each queue, the hints that are out and have not been answered by a claim."""

    def mark_hinted(self, step_ids: Sequence[UUID]) -> None:
        """Note that a hint for these steps is on its way."""

    def forget_hints(self) -> int:
        """Forget all hints: the broker has lost them. Returns how many ready steps will be hinted anew."""

    # -- timers ----------------------------------------------------------------------------------------------------

    def due_timers(self, limit: int) -> list[Due]:
        """List timers whose moment has come, the oldest first."""

    def next_due(self) -> timedelta | None:
        """Say how long until the next timer is due; None if there is none."""

    def drop_timers(self, timers: Sequence[Due]) -> None:
        """Remove timers that no longer mean anything, unless they were set anew since they were seen."""

    def postpone_timer(self, due: Due, by: timedelta) -> None:
        """Look at a timer again later, unless it was set anew since it was seen."""

    # -- triggers and effects --------------------------------------------------------------------------------------

    def trigger(self, slug: str) -> Trigger | None:
        """Read a trigger; None if there is none of that slug."""

    def newest_definition(
        self, tenant_id: str, namespace: str, name: str, *, version: int | None = None
    ) -> StoredDefinition | None:
        """Read the highest version of a name that is not deprecated, or the version given; None if there is none."""

    def reserve_emission(self, tenant_id: str, scope: str, key: str, instance_id: UUID) -> UUID | None:
        """Take the key of an emission; the instance that was started under it, None if it was free."""

    def effect_of_step(self, instance_id: UUID, key: NodeKey, run_id: UUID) -> EffectDone | None:
        """Read what a step has done in this run of its instance; None if nothing yet."""

    def insert_effect(self, done: EffectDone) -> bool:
        """Store the row of an act, in the transaction of the act; False if the step has done it before."""

    # -- letters ---------------------------------------------------------------------------------------------------

    def waiting_letters(self, recipients: Sequence[UUID]) -> dict[UUID, int]:
        """Count the letters to some instances; those without any are left out."""

    def overdue_letters(self, limit: int) -> list[UUID]:
        """Name instances with letters that nobody has delivered, those that have waited longest first."""

    def drop_undeliverable_letters(self, recipients: Sequence[UUID]) -> int:
        """Remove letters to those instances that have ended or do not exist; returns how many."""

    def postpone_letters(self, recipient: UUID, by: timedelta) -> None:
        """Try the letters to an instance again later."""

    # -- worker processes and upkeep -------------------------------------------------------------------------------

    def register_worker(
        self,
        worker_id: UUID,
        *,
        name: str,
        kind: str,
        queues: Sequence[str],
        handlers: Sequence[str],
        slots: int,
    ) -> None:
        """Write the row of a worker process, or renew it. `kind` is `celery` or `http`."""

    def beat_worker(self, worker_id: UUID) -> Beat | None:
        """Renew the heartbeat of a worker process, and give what it is told; None if its row is gone."""

    def remove_worker(self, worker_id: UUID) -> None:
        """Take a worker process off the list."""

    def remove_silent_workers(self, silent_for: timedelta) -> int:
        """Remove rows of processes that have been silent for long and hold no claim; returns how many."""

    def workers_alive(self, within: timedelta) -> list[dict[str, Any]]:
        """List worker processes that take hints and have sent a heartbeat within the given time."""

    def handlers_and_routes(self, within: timedelta) -> tuple[frozenset[str], Routes]:
        """Read which handlers such worker processes know, and the rules that lead new tasks to other queues."""

    def read_fact(self, name: str) -> str | None:
        """Read one fact of the installation; None if it was never written."""

    def write_fact(self, name: str, value: str) -> None:
        """Write one fact of the installation."""

    def write_moment(self, name: str) -> None:
        """Write the store's time as a fact of the installation, in ISO 8601."""

    def leftovers(self) -> Leftovers:
        """Tell what there is that a crash may have left behind."""

    def remove_of_deleted(self) -> int:
        """Remove some of the ended instances that deleted sequences have left; returns how many, 0 if none is left."""

    def forget_nonces(self, limit: int) -> int:
        """Remove some of the nonces whose signatures are no longer good; returns how many."""

    def make_partitions(self) -> int:
        """Create the partitions of the history that are missing; returns how many were made."""


class Store(Protocol):
    """Where the truth is. Safe to use from several threads.

    Args:
        clock: Its time, carried forward in this process.
    """

    @property
    def clock(self) -> Clock:
        """Its time as seen from this process."""

    def transaction(self, *, is_losable: bool = False, is_single: bool = False) -> AbstractContextManager[Transaction]:
        """Open a transaction; it commits at the end of the block and rolls back on an error.

        Args:
            is_losable: The writes may be lost in a crash of the store (claims, heartbeats).
            is_single: One thing is asked or done, which is a transaction by itself; of several, each is.

        Raises:
            StoreUnavailable: The store did not answer. Whether a commit that was under way took effect is unknown.
        """

    def is_retryable(self, error: Exception) -> bool:
        """Tell whether the same transaction may succeed when tried again: it stood in the way of another one."""

    def is_passing(self, error: Exception) -> bool:
        """Tell whether an error is one of the moment, and says nothing about what was to be written."""
