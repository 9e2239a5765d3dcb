"""Fires what has waited for a moment: delays, back-offs, sleeps, gate and task time-outs, starts in the future."""

from datetime import timedelta

from orchestrator.engine import Engine
from orchestrator.loops import JITTERED, TickResult, together_or_alone
from orchestrator.store.timers import Due

POSTPONE = timedelta(seconds=30)
"""When a timer that could not be fired is tried again."""


class Timers:
    """Looks for timers that are due. Several may run: a timer fires once, under its instance's lock."""

    name = "timers"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._at_once = engine.settings.loop_batch
        # The upper bound of a timer's lateness when another process has set it while this loop slept.
        self._longest_wait = timedelta(seconds=engine.settings.tick_seconds / JITTERED)

    def tick(self) -> TickResult:
        """Fire what is due."""
        with self._engine.store.transaction(is_single=True) as tx:
            until_next = tx.next_due()
        if until_next is None or until_next > self._longest_wait:
            return TickResult(done=0, wait=self._longest_wait.total_seconds())
        if until_next > timedelta(0):
            return TickResult(done=0, wait=until_next.total_seconds(), is_exact=True)
        with self._engine.store.transaction(is_single=True) as tx:
            due = tx.due_timers(self._at_once)
        fired = together_or_alone(self._engine.fire, due, self._postpone) if due else 0
        return TickResult(done=fired, wait=0.0)

    def _postpone(self, due: Due) -> None:
        with self._engine.store.transaction() as tx:
            tx.postpone_timer(due, POSTPONE)
