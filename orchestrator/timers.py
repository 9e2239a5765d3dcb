"""Fires what has waited for a moment: delays, back-offs, sleeps, gate and task time-outs, starts in the future."""

from orchestrator.engine import Engine
from orchestrator.loops import TickResult
from orchestrator.store import steps

AT_ONCE = 200
LONGEST_WAIT_SECONDS = 0.1
"""Upper bound of a timer's lateness when another process has set it while this loop slept."""


class Timers:
    """Looks for timers that are due. Several may run: a timer fires once, under its instance's lock."""

    name = "timers"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def tick(self) -> TickResult:
        """Fire what is due."""
        with self._engine.store.transaction() as tx:
            due = steps.due_timers(tx, AT_ONCE)
            until_next = steps.next_due(tx) if not due else None
        if due:
            fired = self._engine.fire(due)
            return TickResult(done=fired, wait=0.0)
        wait = LONGEST_WAIT_SECONDS
        if until_next is not None:
            wait = min(wait, max(0.0, until_next.total_seconds()))
        return TickResult(done=0, wait=wait)
