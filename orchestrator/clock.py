"""The database's clock, as seen from this process between two looks at it.

Deadlines are told by the database (RELIABILITY A10). Asking it before every decision would cost a round trip, so its
time is carried forward with this machine's monotonic clock, from the last answer.
"""

import time
from datetime import datetime, timedelta


class DatabaseClock:
    """Carries the database's time forward. Safe to use from several threads."""

    def __init__(self) -> None:
        self._seen: tuple[datetime, float] | None = None

    def set(self, now: datetime) -> None:
        """Take over a time the database has just told."""
        self._seen = (now, time.monotonic())

    def now(self) -> datetime | None:
        """Give the database's time, None before it was told once."""
        if self._seen is None:
            return None
        told, at = self._seen
        return told + timedelta(seconds=time.monotonic() - at)
