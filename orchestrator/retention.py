"""Deletes instances that ended long ago, where the installation is set to forget them."""

from datetime import timedelta

import structlog

from orchestrator.loops import TickResult
from orchestrator.store import removal
from orchestrator.store.postgres import PostgresStore

log = structlog.get_logger()

LONGEST_WAIT_SECONDS = 60.0
SHORTEST_WAIT_SECONDS = 0.5


class Retention:
    """Removes a bounded number of instances in each round. Several may run: they skip one another's rows.

    Args:
        keep: How long an instance is kept after its end.
    """

    name = "retention"

    def __init__(self, store: PostgresStore, keep: timedelta) -> None:
        self._store = store
        self._keep = keep
        self._wait = min(LONGEST_WAIT_SECONDS, max(SHORTEST_WAIT_SECONDS, keep.total_seconds() / 4))

    def tick(self) -> TickResult:
        """Delete what is old enough."""
        with self._store.transaction() as tx:
            removed = removal.remove_ended(tx, self._keep)
        if removed:
            log.info("instances_forgotten", count=removed)
        return TickResult(done=removed, wait=0.0 if removed == removal.AT_ONCE else self._wait)
