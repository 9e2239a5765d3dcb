"""PostgreSQL as the engine's store: each verb of the interface, and the function that holds its SQL.

A function whose first argument is the transaction is a method of it when it is named in the class: the verbs cost
nothing over calling the function, and the SQL stays in the module of its subject.
"""

from contextlib import AbstractContextManager, suppress

from orchestrator.clock import DatabaseClock
from orchestrator.encryption import Vault
from orchestrator.errors import StoreUnavailable
from orchestrator.store import (
    apply,
    checkpoints,
    claiming,
    copies,
    creations,
    definitions,
    effects,
    hints,
    injections,
    installation,
    instances,
    interface,
    items,
    leases,
    letters,
    nonces,
    reading,
    removal,
    row_security,
    session,
    sessions,
    timers,
    triggers,
    upkeep,
    worker_orders,
    workers,
)
from orchestrator.store.apart import Apart
from orchestrator.store.pool import Pooler
from orchestrator.store.row_security import RowSecurity


class PostgresTransaction(session.Transaction):
    """One open transaction in PostgreSQL: `orchestrator.store.interface.Transaction`."""

    lock = reading.lock
    lock_and_load = reading.lock_and_load
    load_instances = reading.instances
    fill = reading.fill
    write = apply.write
    write_at_once = apply.write_at_once
    insert_instances = creations.insert
    insert_alike = creations.insert_alike
    insert_at_once = creations.insert_at_once
    copy_rows = copies.copy_rows
    reserve_keys = instances.reserve_keys
    look_at = instances.look_at
    items_in_progress = items.in_progress
    load_definitions = definitions.get_many
    load_injections = injections.injected_into
    state_values = instances.state_values
    session_data = sessions.data_for
    newest_checkpoints = checkpoints.newest

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

    trigger = triggers.get
    newest_definition = definitions.newest
    reserve_emission = effects.reserve_emission
    effect_of_step = effects.of_step
    insert_effect = effects.insert

    waiting_letters = letters.waiting
    overdue_letters = letters.overdue
    drop_undeliverable_letters = letters.drop_undeliverable
    postpone_letters = letters.postpone

    register_worker = workers.register
    beat_worker = workers.beat
    remove_worker = workers.remove
    remove_silent_workers = workers.remove_silent
    workers_alive = workers.alive
    handlers_and_routes = worker_orders.handlers_and_routes
    read_fact = installation.read
    write_fact = installation.write
    write_moment = installation.write_moment
    leftovers = upkeep.leftovers
    remove_of_deleted = removal.remove_of_deleted
    forget_nonces = nonces.forget_old
    make_partitions = upkeep.make_partitions


class PostgresStore(session.Store):
    """PostgreSQL with the verbs of the engine: `orchestrator.store.interface.Store`.

    Args:
        apart: What it stores apart of the rows it belongs to.
        vault: Seals what is private; None leaves it in the clear.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 1,
        overflow: int = 0,
        apart: Apart | None = None,
        pooler: Pooler = Pooler.SESSION,
        vault: Vault | None = None,
        row_security: RowSecurity | None = None,
    ) -> None:
        super().__init__(
            url, pool_size=pool_size, overflow=overflow, pooler=pooler, vault=vault, row_security=row_security
        )
        self.clock = DatabaseClock()
        self._apart = apart or Apart()

    def transaction(
        self, *, is_losable: bool = False, is_single: bool = False
    ) -> AbstractContextManager[PostgresTransaction]:
        """Open a transaction with the verbs of the engine; see `session.Store.transaction`."""
        return self.opened(PostgresTransaction, is_losable=is_losable, is_single=is_single, apart=self._apart)

    def reading(self, tenant: str | None, *, is_single: bool = False) -> AbstractContextManager[PostgresTransaction]:
        """Open a transaction with the verbs of the engine that only reads; see `session.Store.reading`."""
        return self.opened(PostgresTransaction, reader=self.reader(tenant), is_single=is_single, apart=self._apart)

    def try_out(self) -> None:
        """Open a connection, as any store does, and compare the key of this process with that of the database.

        Raises:
            ConfigurationError: What is stored is sealed with a key that this process does not have, or the account does
                not own the tables.
        """
        super().try_out()
        with suppress(StoreUnavailable), self.transaction() as tx:
            installation.agree_on_key(tx, self.vault)
            row_security.check_account(tx.query)

    def installation(self, name: str = "") -> str:
        """Give the name by which this installation goes outside of its database: a given one, else its id."""
        if name:
            return name
        with self.transaction() as tx:
            return installation.identity(tx)

    def is_retryable(self, error: Exception) -> bool:
        """Tell whether the same transaction may succeed when tried again: deadlock, serialization, lock time-out."""
        return session.is_retryable(error)

    def is_passing(self, error: Exception) -> bool:
        """Tell whether an error is one of the moment: rows that others hold for long, or a server that takes long."""
        return session.is_passing(error)


def postgres_of(store: interface.Store) -> PostgresStore:
    """Give the PostgreSQL store behind an engine, for those who read it with SQL.

    Raises:
        TypeError: The engine runs over another store.
    """
    if not isinstance(store, PostgresStore):
        raise TypeError(f"{type(store).__name__} is not PostgreSQL")
    return store
