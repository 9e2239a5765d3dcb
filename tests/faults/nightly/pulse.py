"""Listens to the heartbeats of workers: one that was silent for too long is taken for dead, whatever silenced it.

On a machine that is busy with other things that happens without any fault of the run. What such a worker was running
may run again, and the judge has to know.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.errors import StoreUnavailable
from tests.faults.journey import Fault

LOOK_SECONDS = 0.5
SILENT_SECONDS = 5.0
"""Less than the 6 s after which a worker is taken for dead: a look may see a heartbeat late."""
_HEARTBEATS = "SELECT id, name, extract(epoch FROM heartbeat_at)::float8 FROM workers"

Query = Callable[[str], Sequence[Sequence[Any]]]


class Pulse:
    """The gaps between the heartbeats of workers that live. A worker that was killed sends none after the gap.

    Args:
        query: Asks the database.
        children: Steps that one worker can be running.
        grace: Seconds after a gap in which its claims may yet be taken away.
    """

    def __init__(self, query: Query, *, children: int, grace: float) -> None:
        self._query = query
        self._children = children
        self._grace = grace
        self._heard: dict[Any, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="pulse", daemon=True)
        self.silences: list[Fault] = []

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._is_over.set()
        self._thread.join(30)

    def look(self) -> None:
        """Look once; what a database that is away has not been told shows when it is back."""
        try:
            heartbeats = self._query(_HEARTBEATS)
        except StoreUnavailable:
            return
        for worker_id, name, heard_at in heartbeats:
            former = self._heard.get(worker_id, heard_at)
            if heard_at - former >= SILENT_SECONDS:
                self.silences.append(
                    Fault(
                        name=f"silence of {name}",
                        began_at=former,
                        ended_at=heard_at + self._grace,
                        may_run_again=self._children,
                    )
                )
            self._heard[worker_id] = heard_at

    def since(self, moment: float) -> tuple[Fault, ...]:
        """Give the silences that were not over at a moment (seconds since 1970)."""
        return tuple(each for each in self.silences if each.ended_at >= moment)

    def _listen(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            self.look()
