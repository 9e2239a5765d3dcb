"""Keeps the counts that metrics are read from: of the history, and of the rounds of this process's loops."""

from orchestrator.loops import Durations, TickResult
from orchestrator.store import counters, observed
from orchestrator.store.histograms import counts_of
from orchestrator.store.postgres import PostgresStore

WAIT_SECONDS = 5.0


class Meter:
    """Lets the counts go on in small slices. Several may run: one at a time does it.

    Args:
        durations: How long the rounds of the loops took.
    """

    name = "meter"

    def __init__(self, store: PostgresStore, durations: Durations) -> None:
        self._store = store
        self._durations = durations

    def tick(self) -> TickResult:
        """Count what has happened since the last round."""
        with self._store.transaction() as tx:
            observed.fold(tx)
        counts = counts_of(observed.TICK_DURATION, self._durations.take())
        with self._store.transaction() as tx:
            counters.add(tx, counts)
        return TickResult(done=0, wait=WAIT_SECONDS)
