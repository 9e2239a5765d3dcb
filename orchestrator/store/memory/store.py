"""Transactions over rows in memory: one at a time, taken back on an error."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum

from orchestrator.store.memory import claiming, emitting, hints, leases, letters, reading, timers, workers, writing
from orchestrator.store.memory.base import Base
from orchestrator.store.memory.clock import VirtualClock
from orchestrator.store.memory.tables import Journal, Tables


class Moment(StrEnum):
    """A moment in the life of a transaction that a test may stand at."""

    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"


Watch = Callable[[Moment], None]
"""Told of the moments of transactions that have written something; what it raises breaks them there."""


class MemoryTransaction(Base):
    """One open transaction in memory: `orchestrator.store.interface.Transaction`."""

    lock = reading.lock
    lock_and_load = reading.lock_and_load
    load_instances = reading.load_instances
    load_definitions = reading.load_definitions
    load_injections = reading.load_injections
    fill = reading.fill
    state_values = reading.state_values
    session_data = reading.session_data
    newest_checkpoints = reading.newest_checkpoints

    write = writing.write
    write_at_once = writing.write_at_once
    insert_instances = writing.insert_instances
    insert_alike = writing.insert_alike
    insert_at_once = writing.insert_at_once
    copy_rows = writing.copy_rows
    reserve_keys = writing.reserve_keys
    look_at = reading.look_at
    items_in_progress = reading.items_in_progress

    claim_one = claiming.claim_one
    most_urgent = claiming.most_urgent
    claim_ready = claiming.claim_ready
    claim_tasks = claiming.claim_tasks
    claims_of = leases.claims_of
    claims_of_slots = leases.claims_of_slots
    lost_claims = leases.lost_claims
    release_stale_tasks = leases.release_stale_tasks
    is_held_by = leases.is_held_by
    has_committed = leases.has_committed

    heads = hints.heads
    has_ready_steps = hints.has_ready
    outstanding_hints = hints.outstanding
    mark_hinted = hints.mark
    forget_hints = hints.forget

    due_timers = timers.due
    next_due = timers.next_due
    drop_timers = timers.drop
    postpone_timer = timers.postpone

    trigger = emitting.trigger
    newest_definition = emitting.newest_definition
    reserve_emission = emitting.reserve_emission
    effect_of_step = emitting.effect_of_step
    insert_effect = emitting.insert_effect

    waiting_letters = letters.waiting
    overdue_letters = letters.overdue
    drop_undeliverable_letters = letters.drop_undeliverable
    postpone_letters = letters.postpone

    register_worker = workers.register
    beat_worker = workers.beat
    remove_worker = workers.remove
    remove_silent_workers = workers.remove_silent
    workers_alive = workers.alive
    handlers_and_routes = workers.handlers_and_routes
    read_fact = workers.read_fact
    write_fact = workers.write_fact
    write_moment = workers.write_moment
    leftovers = workers.leftovers
    remove_of_deleted = workers.remove_of_deleted
    forget_nonces = workers.forget_nonces
    make_partitions = workers.make_partitions


class MemoryStore:
    """A store in memory: `orchestrator.store.interface.Store`.

    Args:
        clock: Its time.
        watch: Told of commits; None watches nothing.
    """

    def __init__(self, clock: VirtualClock | None = None, watch: Watch | None = None) -> None:
        self.clock = clock or VirtualClock()
        self.tables = Tables()
        self.watch = watch
        self._journal = Journal()
        self._lock = threading.RLock()
        self._is_open = False

    @contextmanager
    def transaction(self, *, is_losable: bool = False, is_single: bool = False) -> Iterator[MemoryTransaction]:
        """Open a transaction; see `interface.Store.transaction`.

        Raises:
            RuntimeError: This thread has one open already: over PostgreSQL it would wait for itself.
        """
        with self._lock:
            if self._is_open:
                raise RuntimeError("a transaction inside a transaction")
            self._is_open = True
            try:
                yield MemoryTransaction(self.tables, self._journal, self.clock)
                if self.watch is not None and self._journal.has_writes:
                    self.watch(Moment.BEFORE_COMMIT)
                wrote = self._journal.commit()
            finally:
                self._journal.roll_back()
                self._is_open = False
        if wrote and self.watch is not None:
            self.watch(Moment.AFTER_COMMIT)

    def is_retryable(self, error: Exception) -> bool:
        """Say no: transactions that pass one at a time never stand in one another's way."""
        return False

    def is_passing(self, error: Exception) -> bool:
        """Say no: it has nothing to wait for."""
        return False

    def now(self) -> datetime:
        """Give the time."""
        return self.clock.now()
