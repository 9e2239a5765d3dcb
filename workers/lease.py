"""For how long the claims of a worker are its own, as its children know it: memory that they share with their parent.

A worker that is not heard of for `dead_after` is taken for dead, and its claims are given to others. One that stood
still for so long, or could not reach the store, does not notice. So whatever is about to begin with a step looks at
this first, on the clock that goes on while a process stands still.
"""

import mmap
import time
from collections.abc import Callable
from datetime import timedelta

USED = 0.9
"""The part of `dead_after` that a worker makes use of: the rest is for what lies between a look and what follows."""


class Lease:
    """Until when the claims of a worker are its own, made by its parent before it forks.

    Args:
        monotonic: A clock that is the same in all its processes.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._until = memoryview(mmap.mmap(-1, 8)).cast("d")

    def renew(self, heard_at: float, dead_after: timedelta) -> None:
        """Note that the store has heard of the worker.

        Args:
            heard_at: Monotonic time, not later than that: before the heartbeat was sent.
        """
        self._until[0] = heard_at + USED * dead_after.total_seconds()

    def holds(self) -> bool:
        """Tell whether it is not over; it is before the first heartbeat."""
        return self._monotonic() < self._until[0]
