"""Which handlers the living Celery workers know: steps of others wait for a worker that polls over HTTP."""

from datetime import timedelta
from threading import Lock

from orchestrator.clock import MACHINE_TIME, MachineTime
from orchestrator.errors import StoreUnavailable
from orchestrator.store.interface import Store

FRESH_SECONDS = 2.0


class KnownHandlers:
    """The handlers of all living worker processes, read from the store at most every two seconds."""

    def __init__(self, store: Store, alive_within: timedelta, machine: MachineTime = MACHINE_TIME) -> None:
        self._store = store
        self._monotonic = machine.monotonic
        self._alive_within = alive_within
        self._names: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self._lock = Lock()

    def names(self) -> frozenset[str]:
        """Give the names known; the last ones while the store does not answer."""
        if self._monotonic() - self._read_at > FRESH_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._read_at = self._monotonic()
                self._names = self._read()
            except StoreUnavailable:
                pass
            finally:
                self._lock.release()
        return self._names

    def latest(self) -> frozenset[str]:
        """Give the names as `names` has read them last, without touching the store."""
        return self._names

    def _read(self) -> frozenset[str]:
        with self._store.transaction() as tx:
            alive = tx.workers_alive(self._alive_within)
        return frozenset(name for worker in alive for name in worker["handlers"])
