"""Finds what a crash has left behind: claims of dead workers, tasks of silent ones, weeks without a partition,
instances of deleted sequences, and nonces that are no longer of use."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from orchestrator.clock import MACHINE_TIME, MachineTime
from orchestrator.core.model import Claim
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.loops import TickResult, together_or_alone
from orchestrator.settings import Settings

log = structlog.get_logger()

WAIT_SECONDS = 0.5
UPKEEP_SECONDS = 3600.0
FORGET_SECONDS = 60.0
NONCES_AT_ONCE = 5000
GRACE_HEARTBEATS = 2
HEARTBEAT_FACT = "service_heartbeat"
HEARTBEAT = timedelta(seconds=2)
"""How often the loops say that they live; they are believed for several times as long."""


class _Pace:
    """Says when a duty is due again."""

    def __init__(self, every: timedelta, machine: MachineTime) -> None:
        self._every = every.total_seconds()
        self._monotonic = machine.monotonic
        self._done_at = float("-inf")

    def is_due(self) -> bool:
        """Tell whether it is due, and if so, begin the next wait."""
        if self._monotonic() - self._done_at < self._every:
            return False
        self._done_at = self._monotonic()
        return True


class Reconciler:
    """Gives lost work to others. Several may run: each act is guarded by the claim it ends.

    Args:
        are_well: Tells whether all loops of this process tick; only then it says that the loops live.
    """

    name = "reconciler"

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        machine: MachineTime = MACHINE_TIME,
        *,
        are_well: Callable[[], bool] = lambda: True,
    ) -> None:
        self._engine = engine
        self._monotonic = machine.monotonic
        self._settings = settings
        self._kept_up_at = float("-inf")
        self._forgot_at = float("-inf")
        self._answers_since: float | None = None
        self._are_well = are_well
        self._tasks = _Pace(settings.task_reaper_tick, machine)
        self._nodes = _Pace(settings.node_reaper_tick, machine)
        self._heartbeat = _Pace(HEARTBEAT, machine)

    def tick(self) -> TickResult:
        """Look once for each kind of loss."""
        try:
            return self._look()
        except StoreUnavailable:
            self._answers_since = None
            raise

    def _may_tell_the_dead(self) -> bool:
        """Tell whether silence means death: the store has answered long enough for every living worker to be heard.

        While it is away nobody can write a heartbeat. Were the silent declared dead as soon as it is back, every step
        in progress would be run again, and three such outages would park it.
        """
        if self._answers_since is None:
            self._answers_since = self._monotonic()
        return self._monotonic() - self._answers_since >= GRACE_HEARTBEATS * self._settings.heartbeat.total_seconds()

    def _look(self) -> TickResult:
        with self._engine.store.transaction(is_single=True) as tx:
            left = tx.leftovers()
        # Asked in rounds without claims, too: for how long the store has answered, and when tasks were looked for.
        can_tell, tasks = self._may_tell_the_dead(), self._tasks.is_due()
        taken, is_more = self._recover(can_tell=can_tell, tasks=tasks) if left.claims else (0, False)
        self._look_after_processes()
        removed = (self._clear_away() if left.of_deleted else 0) + self._forget()
        self._keep_up()
        return TickResult(done=taken + removed, wait=0.0 if is_more or removed else WAIT_SECONDS)

    def _recover(self, *, can_tell: bool, tasks: bool) -> tuple[int, bool]:
        """Give lost work to others; returns how much it was, and whether there may be more."""
        at_once = self._settings.loop_batch
        with self._engine.store.transaction() as tx:
            lost = tx.lost_claims(self._settings.dead_after, at_once) if can_tell else []
            released = tx.release_stale_tasks(self._settings.task_lease, at_once) if tasks else 0
        taken = together_or_alone(self._lose, lost, lambda _claim: None) if lost else 0
        if taken or released:
            log.warning("work_recovered", claims_of_dead_workers=taken, silent_tasks=released)
        return taken + released, len(lost) == at_once

    def _look_after_processes(self) -> None:
        if self._nodes.is_due():
            with self._engine.store.transaction() as tx:
                tx.remove_silent_workers(self._settings.node_stale_after)
        if self._are_well() and self._heartbeat.is_due():
            with self._engine.store.transaction(is_losable=True, is_single=True) as tx:
                tx.write_moment(HEARTBEAT_FACT)

    def _clear_away(self) -> int:
        with self._engine.store.transaction() as tx:
            return tx.remove_of_deleted()

    def _forget(self) -> int:
        """Remove old nonces, once a minute until none is left; returns how many if there may be more."""
        if self._monotonic() - self._forgot_at < FORGET_SECONDS:
            return 0
        with self._engine.store.transaction() as tx:
            forgotten = tx.forget_nonces(NONCES_AT_ONCE)
        if forgotten == NONCES_AT_ONCE:
            return forgotten
        self._forgot_at = self._monotonic()
        return 0

    def _lose(self, claims: Sequence[Claim]) -> int:
        return self._engine.lose(claims, "the worker stopped its heartbeat")

    def _keep_up(self) -> None:
        if self._monotonic() - self._kept_up_at < UPKEEP_SECONDS:
            return
        with self._engine.store.transaction() as tx:
            made = tx.make_partitions()
        self._kept_up_at = self._monotonic()
        if made:
            log.info("partitions_made", count=made)
