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

    A lease that was over and is renewed is another term: what was claimed in the one before may be others' by now.

    Args:
        monotonic: A clock that is the same in all its processes.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        memory = memoryview(mmap.mmap(-1, 16)).cast("d")
        self._until, self._number = memory[:1], memory[1:]

    def renew(self, heard_at: float, dead_after: timedelta, *, is_new: bool = False) -> None:
        """Note that the store has heard of the worker.

        Args:
            heard_at: Monotonic time, not later than that: before the heartbeat was sent.
            is_new: Whether the store did not know the worker any more.
        """
        if is_new or self._monotonic() >= self._until[0]:
            self._number[0] += 1  # first, so that nobody sees the former term go on
        self._until[0] = heard_at + USED * dead_after.total_seconds()

    def term(self) -> float | None:
        """Give the number of the term; None if the lease is over, as it is before the first heartbeat."""
        return self._number[0] if self._monotonic() < self._until[0] else None
