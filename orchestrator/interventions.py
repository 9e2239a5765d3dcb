"""What people do to instances by hand: signals, retries, states, contexts, restarts, copies, migrations, injections."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator import forking
from orchestrator.core.changes import BlocksForgotten
from orchestrator.core.events import (
    BatchActed,
    BlocksInjected,
    ContextReplaced,
    Event,
    Migrated,
    Rescheduled,
    ResumedFrom,
    RetryRequested,
    StateForced,
)
from orchestrator.core.model import Instance
from orchestrator.core.signalling import event_of_signal
from orchestrator.core.states import InstanceState
from orchestrator.errors import NotFound
from orchestrator.exchange import Forked, Restart, Resumed, Tally
from orchestrator.passage import Passage
from orchestrator.store.interface import Store
from sequences import document
from sequences.signals import SignalType


class Interventions:
    """Each verb is one transaction, or one for each portion of many instances."""

    def __init__(self, store: Store, passage: Passage) -> None:
        self._store = store
        self._passage = passage
        self._turnstile = passage.turnstile

    def signal(self, instance_id: UUID, signal: SignalType, payload: Any) -> UUID:
        """Deliver a signal at once; returns its id.

        Raises:
            NotFound: There is no such instance.
            InvalidArgument: The instance has ended, or a nameless answer fits several gates.
        """
        signal_id = self._new_id()
        self._passage.one(instance_id, event_of_signal(signal_id, signal, payload))
        return signal_id

    def signal_many(self, ids: Sequence[UUID], signal: SignalType, payload: Any) -> int:
        """Deliver a signal to many instances, some at a time; returns how many have taken it."""
        return self._passage.each(ids, lambda: event_of_signal(self._new_id(), signal, payload)).applied

    def set_state_of_many(self, ids: Sequence[UUID], state: InstanceState) -> int:
        """Set the state of many instances, whatever theirs is; returns how many there are."""
        return self._passage.each(ids, lambda: StateForced(state=state, is_checked=False)).applied

    def reschedule_many(self, ids: Sequence[UUID], by: timedelta) -> int:
        """Shift what many instances wait for; returns how many were scheduled."""
        return self._passage.each(ids, lambda: Rescheduled(by=by)).applied

    def act_on_many(self, ids: Sequence[UUID], action: str, signal: SignalType | None, payload: Any) -> Tally:
        """Do a batch action to many instances: a signal, or else a retry; each that it changes has an audit row."""

        def event() -> Event:
            inner = event_of_signal(self._new_id(), signal, payload) if signal is not None else RetryRequested()
            return BatchActed(action=action, event=inner)

        return self._passage.each(ids, event)

    def retry(self, instance_id: UUID) -> None:
        """Reopen a failed instance at its failed step; InvalidArgument in any other state."""
        self._passage.one(instance_id, RetryRequested())

    def resume_from(self, instance_id: UUID, restart: Restart) -> Resumed:
        """Run a root block and all behind it anew.

        Raises:
            NotFound: There is no such instance.
            InvalidArgument: It is neither paused nor has ended, or the block is not in its root list.
            PayloadTooLarge: The data do not fit into the context.
        """
        passed = self._passage.one(instance_id, self._resumed_from(restart))
        forgotten = (change for change in passed.decisions[0].changes if isinstance(change, BlocksForgotten))
        return Resumed(instance=passed.instance, outputs_deleted=sum(change.rows for change in forgotten))

    def fork(self, instance_id: UUID, restart: Restart, *, dry_run: bool) -> Forked:
        """Start a copy of an instance, whatever its state, that goes on from a root block.

        Raises:
            NotFound: There is no such instance.
            InvalidArgument: The block is not in its root list.
            PayloadTooLarge: The data do not fit into the context.
        """
        event = self._resumed_from(restart, is_copy=True)
        self._passage.know_handlers()
        with self._store.transaction() as tx:
            now = tx.lock([instance_id], []).now
            source = tx.load_instances([instance_id]).get(instance_id)
            if source is None:
                raise NotFound(f"instance {instance_id}")
            plan = self._turnstile.plan_of(tx, source)
            copied, rerun = forking.split(plan, restart.block_id)
            made = forking.copy(
                tx, source, plan, restart.block_id, dry_run=dry_run, new_id=lambda: self._turnstile.new_id(now)
            )
            passed = self._passage.within(tx, made.id, event, now)
        self._passage.follow_up(passed)
        return Forked(instance=passed.instance, copied=copied, rerun=rerun)

    def _resumed_from(self, restart: Restart, *, is_copy: bool = False) -> ResumedFrom:
        signals = tuple(event_of_signal(self._new_id(), signal, payload) for signal, payload in restart.signals)
        return ResumedFrom(block_id=restart.block_id, data=restart.data, signals=signals, is_copy=is_copy)

    def set_state(self, instance_id: UUID, state: InstanceState, not_before: datetime | None = None) -> None:
        """Set the state of an instance by hand; InvalidArgument for a move that the table does not allow."""
        self._passage.one(instance_id, StateForced(state=state, not_before=not_before))

    def replace_context(self, instance_id: UUID, data: Any, config: Any) -> None:
        """Replace the data and config sections, in any state."""
        self._passage.one(instance_id, ContextReplaced(data=data, config=config))

    def migrate(self, instance_id: UUID, sequence_id: UUID) -> None:
        """Let an instance go over to another definition, whatever it is doing.

        Raises:
            NotFound: There is no such instance, or no such definition.
            InvalidArgument: The instance has ended.
        """
        self._passage.one(instance_id, self._migrated(sequence_id))

    def migrate_many(self, ids: Sequence[UUID], sequence_id: UUID) -> Tally:
        """Let many instances go over to another definition; those that have ended stay where they are."""
        event = self._migrated(sequence_id)
        return self._passage.each(ids, lambda: event)

    def _migrated(self, sequence_id: UUID) -> Event:
        with self._store.transaction() as tx:
            plan = self._turnstile.plans(tx, [sequence_id])[sequence_id]
        return Migrated(sequence_id=sequence_id, plan=plan)

    def inject(self, instance_id: UUID, blocks: tuple[document.Block, ...], position: int | None = None) -> Instance:
        """Let blocks join the root list of an instance, in any state; returns the instance as it then reads.

        Raises:
            NotFound: There is no such instance.
            InvalidArgument: An id is taken.
        """
        return self._passage.one(instance_id, BlocksInjected(blocks=blocks, position=position)).instance

    def _new_id(self) -> UUID:
        return self._turnstile.new_id(self._turnstile.now())
