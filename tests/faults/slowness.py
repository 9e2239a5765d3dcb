"""How slow the machine is while something is measured on it: bars on time are for a machine with nothing else to do."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

LOOPS = 1_000_000
QUIET_SECONDS = 0.03
"""What the loops take where nothing else runs (AMD EPYC, CPython 3.11); a faster machine counts as no faster."""
EVERY_SECONDS = 0.5


@dataclass(slots=True)
class Slowness:
    """Samples of how long a fixed piece of work takes."""

    samples: list[float] = field(default_factory=list)

    @property
    def factor(self) -> float:
        """So many times longer than on a quiet machine does work take here; at least 1."""
        return max(1.0, statistics.fmean(self.samples) / QUIET_SECONDS) if self.samples else 1.0

    def stretched(self, waiting: timedelta, working: timedelta) -> timedelta:
        """Give the time for something that waits, whatever the machine, and then works, as long as it takes there."""
        return waiting + working * self.factor

    def take(self) -> None:
        """Take one sample."""
        began = time.perf_counter()
        for _ in range(LOOPS):
            pass
        self.samples.append(time.perf_counter() - began)


@contextmanager
def measured() -> Iterator[Slowness]:
    """Take samples during a block; they cost a twentieth of one core."""
    found, is_over = Slowness(), threading.Event()

    def sample() -> None:
        while not is_over.wait(EVERY_SECONDS):
            found.take()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()
