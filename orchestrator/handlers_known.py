"""Which handlers the living Celery workers know, and where rules lead tasks: read now and then, not at each step.

Steps of other handlers wait for a worker that polls over HTTP.
"""

from datetime import timedelta
from threading import Lock

from orchestrator.clock import MACHINE_TIME, MachineTime
from orchestrator.core.routing import Routes
from orchestrator.errors import StoreUnavailable
from orchestrator.store.interface import Store

FRESH_SECONDS = 0.5
ALL_KNOW_SECONDS = FRESH_SECONDS + 0.1
"""How long after its commit each process passes events by a rule: it reads again by then, and that takes a moment."""


class KnownHandlers:
    """The handlers of all living worker processes, and the routes, read from the store at most twice a second."""

    def __init__(self, store: Store, alive_within: timedelta, machine: MachineTime = MACHINE_TIME) -> None:
        self._store = store
        self._monotonic = machine.monotonic
        self._alive_within = alive_within
        self._names: frozenset[str] = frozenset()
        self._routes: Routes = {}
        self._read_at = float("-inf")
        self._lock = Lock()

    def names(self) -> frozenset[str]:
        """Give the names known; the last ones while the store does not answer."""
        if self._monotonic() - self._read_at > FRESH_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._read_at = self._monotonic()
                self._names, self._routes = self._read()
            except StoreUnavailable:
                pass
            finally:
                self._lock.release()
        return self._names

    def latest(self) -> frozenset[str]:
        """Give the names as `names` has read them last, without touching the store."""
        return self._names

    def routes(self) -> Routes:
        """Give the routes as `names` has read them last, without touching the store."""
        return self._routes

    def forget(self) -> None:
        """Have `names` read at once when it is asked next."""
        self._read_at = float("-inf")

    def _read(self) -> tuple[frozenset[str], Routes]:
        with self._store.transaction(is_single=True) as tx:
            return tx.handlers_and_routes(self._alive_within)
