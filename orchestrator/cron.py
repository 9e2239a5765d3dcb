"""Starts flows when their schedules are due."""

from collections.abc import Sequence
from datetime import timedelta

from orchestrator.engine import Engine
from orchestrator.loops import TickResult, together_or_alone
from orchestrator.schedules import Schedules
from orchestrator.settings import Settings
from orchestrator.store import schedules
from orchestrator.store.postgres import postgres_of
from orchestrator.store.schedules import Schedule

POSTPONE = timedelta(seconds=30)
"""When a schedule that could not be fired is tried again."""
BUFFERED = timedelta(seconds=1)
"""The longest wait between two looks at a schedule that waits for the end of its last flow."""
LONGEST_WAIT = timedelta(minutes=1)
"""Whatever the setting: a loop that is silent for longer is taken for stuck."""
OTHERS_SECONDS = 0.05
"""Wait when all that is due is in the hands of other processes."""


class Cron:
    """Fires schedules that are due. Several may run: a schedule is fired under its lock.

    It sleeps until the next schedule is due, and never longer than the setting `cron_tick`: schedules that other
    processes store meanwhile are seen then.
    """

    name = "cron"

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._store = postgres_of(engine.store)
        self._schedules = Schedules(self._store, engine)
        self._longest = min(settings.cron_tick, LONGEST_WAIT)
        self._at_once = settings.loop_batch

    def tick(self) -> TickResult:
        """Fire what is due."""
        with self._store.transaction() as tx:
            due = schedules.due(tx, self._at_once)
            until_next = schedules.next_due(tx) if not due else None
        if due:
            fired = together_or_alone(self._fire, due, self._postpone)
            return TickResult(done=fired, wait=0.0 if fired else OTHERS_SECONDS)
        wait = self._longest if until_next is None else min(self._longest, max(until_next, timedelta(0)))
        return TickResult(done=0, wait=wait.total_seconds(), is_exact=True)

    def _fire(self, due: Sequence[Schedule]) -> int:
        look_again = min(BUFFERED, self._longest)
        return sum(self._schedules.fire(each, look_again=look_again) for each in due)

    def _postpone(self, due: Schedule) -> None:
        with self._store.transaction() as tx:
            schedules.postpone(tx, due.id, POSTPONE)
