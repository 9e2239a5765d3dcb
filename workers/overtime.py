"""Tells the parent which of its children are stuck: memory they share, with the next deadline of each child.

The rows of the store cannot tell. The claim of an attempt that is over its time is ended by the store's timer, or by
a cancel, while the child may be stuck in the handler for ever, where no signal and no other thread reaches it. Looked
at from the rows such a child holds nothing; in truth it holds a slot of its worker.
"""

import mmap
import os
import struct
import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import billiard

MAX_CHILDREN = 1024
_ENTRY = struct.Struct("=qd")
"""Process number, and the monotonic time at which its next attempt must be over (0 for none)."""


class Deadlines:
    """One entry for each child, made by the parent before it forks. Monotonic clocks are the same in all processes."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ENTRY.size * MAX_CHILDREN)

    def note(self, child: int, deadline: float) -> None:
        """Note the next deadline of this process, which is the given child; 0 for none."""
        if child < MAX_CHILDREN:
            _ENTRY.pack_into(self._memory, child * _ENTRY.size, os.getpid(), deadline)

    def overdue(self, grace: float) -> list[int]:
        """List the processes that are in an attempt whose deadline passed more than `grace` seconds ago."""
        latest = time.monotonic() - grace
        return [pid for pid, deadline in _ENTRY.iter_unpack(self._memory[:]) if 0 < deadline < latest]


class Flag:
    """A flag that the parent puts up and its children see, made before it forks."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def put_up(self) -> None:
        """Put it up."""
        self._memory[0] = 1

    def take_down(self) -> None:
        """Take it down again."""
        self._memory[0] = 0

    @property
    def is_up(self) -> bool:
        """Tell whether it is up."""
        return bool(self._memory[0])


class Overtime:
    """The attempts of this process that must be over at some time.

    Args:
        deadlines: Shared with the parent; None when nobody watches.
    """

    def __init__(self, deadlines: Deadlines | None) -> None:
        self._deadlines = deadlines
        self._child = getattr(billiard.current_process(), "index", 0)
        self._running: dict[Hashable, float] = {}
        self._lock = threading.Lock()
        self._note()

    def begin(self, attempt: Hashable, seconds: float | None) -> None:
        """Note an attempt that may take so long; nothing is noted without a limit."""
        if seconds is not None:
            with self._lock:
                self._running[attempt] = time.monotonic() + seconds
                self._note()

    def end(self, attempt: Hashable) -> None:
        """Note that an attempt is over."""
        with self._lock:
            if self._running.pop(attempt, None) is not None:
                self._note()

    @contextmanager
    def watched(self, attempt: Hashable, seconds: float | None) -> Iterator[None]:
        """Note an attempt for a block."""
        self.begin(attempt, seconds)
        try:
            yield
        finally:
            self.end(attempt)

    def _note(self) -> None:
        if self._deadlines is not None:
            self._deadlines.note(self._child, min(self._running.values(), default=0.0))
