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
        if self._is_old() and self._lock.acquire(blocking=False):
            try:
                self._read_at = self._monotonic()
                self._names, self._routes = self._read()
            except StoreUnavailable:
                pass
            finally:
                self._lock.release()
        return self._names

    def wanted(self) -> timedelta | None:
        """Say how long ago workers may have been heard of, if it is time to read anew; None if it is not."""
        return self._alive_within if self._is_old() else None

    def note(self, known: tuple[frozenset[str], Routes] | None, asked_at: float) -> None:
        """Take over what another question has told along; None if nothing was.

        Args:
            asked_at: The machine's monotonic time before it was sent.
        """
        if known is not None and self._lock.acquire(blocking=False):
            self._read_at = asked_at
            self._names, self._routes = known
            self._lock.release()

    def latest(self) -> frozenset[str]:
        """Give the names as `names` has read them last, without touching the store."""
        return self._names

    def routes(self) -> Routes:
        """Give the routes as `names` has read them last, without touching the store."""
        return self._routes

    def forget(self) -> None:
        """Have `names` read at once when it is asked next."""
        self._read_at = float("-inf")

    def _is_old(self) -> bool:
        return self._monotonic() - self._read_at > FRESH_SECONDS

    def _read(self) -> tuple[frozenset[str], Routes]:
        with self._store.transaction(is_single=True) as tx:
            return tx.handlers_and_routes(self._alive_within)
