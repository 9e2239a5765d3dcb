"""Steps that were claimed together: run one after another, committed together.

A batch is a bet that each of its steps is over in a moment. When one is not, a bystander settles the rest: it commits
what is finished and gives back what has not begun, so that neither waits for the slow one.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import structlog

from orchestrator.exchange import Report, Work

log = structlog.get_logger()

PATIENCE_SECONDS = 0.05
"""How long a batch may take before it is broken up: as long as 32 steps of quick handlers take at the most."""


class Batch:
    """The work of one claim. Its steps are taken by one thread; another may withdraw what is not running."""

    def __init__(self, work: Sequence[Work]) -> None:
        self._waiting = deque(work)
        self._reports: list[Report] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Work | None:
        """Take the next step to run; None when there is none left."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def add(self, report: Report) -> None:
        """Add the outcome of a step that has run."""
        with self._lock:
            self._reports.append(report)

    def withdraw(self) -> tuple[list[Report], list[Work]]:
        """Take out all outcomes, and all steps that have not begun."""
        with self._lock:
            reports, waiting = self._reports, list(self._waiting)
            self._reports = []
            self._waiting.clear()
            return reports, waiting


Settle = Callable[[Sequence[Report], Sequence[Work]], None]
"""Commits outcomes, and gives back steps that have not begun."""


class Watch(Protocol):
    """Somebody who watches batches."""

    def watching(self, batch: Batch) -> AbstractContextManager[None]:
        """Watch a batch for a block, and let what is being settled come to its end."""


class Bystander:
    """Watches the batch that the main thread of a process is running, from a thread of its own.

    Args:
        settle: Called from that thread when a batch takes too long.
    """

    def __init__(self, settle: Settle) -> None:
        self._settle = settle
        self._batch: Batch | None = None
        self._changed = threading.Condition()
        self._settling = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, batch: Batch) -> Iterator[None]:
        """Watch a batch for a block, and let what is being settled come to its end; one step alone is not watched."""
        if len(batch) < 2:
            yield
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="bystander", daemon=True)
            self._thread.start()
        self._show(batch)
        try:
            yield
        finally:
            self._show(None)
            with self._settling:
                pass

    def _show(self, batch: Batch | None) -> None:
        with self._changed:
            self._batch = batch
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._batch is not None)
                batch = self._batch
                is_over = self._changed.wait_for(lambda: self._batch is not batch, PATIENCE_SECONDS)  # noqa: B023
                if is_over or batch is None:
                    continue
                self._settling.acquire()
            try:
                self._settle(*batch.withdraw())
            except Exception:
                # The claims stay with this process, which finds them again when it asks what it holds.
                log.exception("batch_not_settled")
            finally:
                self._settling.release()
            with self._changed:
                self._changed.wait_for(lambda: self._batch is not batch)  # noqa: B023
