"""Who polls for tasks: workers have no other way to say that they exist (contract, api §13.2, §13.7)."""

import time
from threading import Lock
from uuid import UUID

from orchestrator.store import tasks
from orchestrator.store.session import Store
from orchestrator.store.tasks import worker_key

WRITTEN_AGAIN_AFTER = 5.0
"""Seconds; a poll may come every 100 ms and would otherwise cost a write each."""
MAX_KNOWN = 10_000


class Pollers:
    """Writes down polls, each kind of poll every few seconds. Safe to use from several threads."""

    def __init__(self) -> None:
        self._written: dict[tuple[UUID, str, str | None, str | None], float] = {}
        self._lock = Lock()

    def heard(
        self, store: Store, tenant: str | None, worker: str, handler: str, queue: str | None, version: str | None
    ) -> None:
        """Note that a worker has polled for a handler."""
        key = worker_key(tenant, worker)
        if not self._is_due((key, handler, queue, version)):
            return
        with store.transaction(is_losable=True) as tx:
            tasks.note_poller(
                tx,
                key,
                tenant=tenant,
                name=worker,
                queues=[queue] if queue is not None else [],
                handlers=[handler],
                version=version,
            )

    def _is_due(self, poll: tuple[UUID, str, str | None, str | None]) -> bool:
        now = time.monotonic()
        with self._lock:
            if now - self._written.get(poll, float("-inf")) < WRITTEN_AGAIN_AFTER:
                return False
            if len(self._written) >= MAX_KNOWN:
                self._written.clear()
            self._written[poll] = now
            return True
