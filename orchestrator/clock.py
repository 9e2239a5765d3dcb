"""The database's clock, as seen from this process between two looks at it.

Deadlines are told by the database (RELIABILITY A10). Asking it before every decision would cost a round trip, so its
time is carried forward with this machine's monotonic clock.

How far the two are apart is known only to within the time a question takes: the answer was true at some moment between
the two ends of it. Each answer narrows that down, so one slow answer (a busy machine, a lock that was waited for) moves
the clock neither back nor ahead. A clock that lags lets back-offs end early; one that leads lets them end late.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineTime:
    """The time of the machine that a process runs on: good for durations and pauses, never for moments.

    Args:
        monotonic: Tells seconds since some moment; never goes back.
        sleep: Waits for some seconds.
    """

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


MACHINE_TIME: Final = MachineTime()


class DatabaseClock:
    """Carries the database's time forward. Safe to use from several threads.

    Args:
        machine: What carries it.
    """

    def __init__(self, machine: MachineTime = MACHINE_TIME) -> None:
        self._monotonic = machine.monotonic
        self._at_zero: datetime | None = None
        """The database's time when the monotonic clock stood at 0."""

    def set(self, now: datetime, asked_at: float) -> None:
        """Take over a time the database has just told.

        Args:
            asked_at: The machine's monotonic time before the question was sent.
        """
        earliest = now - timedelta(seconds=self._monotonic())
        latest = now - timedelta(seconds=asked_at)
        known = self._at_zero
        self._at_zero = earliest if known is None else min(max(known, earliest), latest)

    def now(self) -> datetime | None:
        """Give the database's time, None before it was told once."""
        at_zero = self._at_zero
        return None if at_zero is None else at_zero + timedelta(seconds=self._monotonic())
