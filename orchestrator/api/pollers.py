"""Who polls for tasks: workers have no other way to say that they exist (contract, api §13.2, §13.7)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from threading import Lock
from uuid import UUID

from orchestrator.store import tasks
from orchestrator.store.session import Store, patiently
from orchestrator.store.tasks import worker_key

WRITTEN_AGAIN_AFTER = 5.0
"""Seconds; a poll may come every 100 ms and would otherwise cost a write each."""
MAX_KNOWN = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which tasks a poll asks for: those that ask for the same may be answered by one claim.

    Args:
        tenant: Whose tasks; None for those of all.
        queue: None for tasks that name no queue.
        rank: Of the version of the worker, as `orchestrator.versions` gives it; None for one without.
    """

    tenant: str | None
    handler: str
    queue: str | None
    rank: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Poller:
    """Who polls, and for how many tasks at the most."""

    worker: str
    limit: int
    version: str | None = None


class Pollers:
    """Writes down polls, each kind of poll every few seconds. Safe to use from several threads."""

    def __init__(self) -> None:
        self._written: dict[tuple[UUID, str, str | None, str | None], float] = {}
        self._lock = Lock()

    def heard(self, store: Store, wanted: Wanted, pollers: Sequence[Poller]) -> None:
        """Note that workers have polled."""
        keys = {worker_key(wanted.tenant, poller.worker): poller for poller in pollers}
        due = {
            key: poller
            for key, poller in keys.items()
            if self._is_due((key, wanted.handler, wanted.queue, poller.version))
        }
        if due:
            patiently(lambda: _write(store, wanted, due))

    def _is_due(self, poll: tuple[UUID, str, str | None, str | None]) -> bool:
        now = time.monotonic()
        with self._lock:
            if now - self._written.get(poll, float("-inf")) < WRITTEN_AGAIN_AFTER:
                return False
            if len(self._written) >= MAX_KNOWN:
                self._written.clear()
            self._written[poll] = now
            return True


def _write(store: Store, wanted: Wanted, pollers: Mapping[UUID, Poller]) -> None:
    """Write who has polled, by ascending key, as others do at the same time."""
    with store.transaction(is_losable=True) as tx:
        for key, poller in sorted(pollers.items(), key=itemgetter(0)):
            tasks.note_poller(
                tx,
                key,
                tenant=wanted.tenant,
                name=poller.worker,
                queues=[wanted.queue] if wanted.queue is not None else [],
                handlers=[wanted.handler],
                version=poller.version,
            )
