"""A clock that stands still until it is moved."""

from datetime import UTC, datetime, timedelta
from typing import Final

START: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""A Monday at noon, far from any change between winter and summer time."""


class VirtualClock:
    """The time of a store in memory; aware UTC. It never goes back.

    >>> clock = VirtualClock()
    >>> clock.move_by(timedelta(days=14))
    >>> clock.now() - START
    datetime.timedelta(days=14)
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        """Give the time."""
        return self._now

    def set(self, now: datetime, asked_at: float) -> None:
        """Learn nothing: this clock is the store's own."""

    def move_to(self, moment: datetime) -> None:
        """Let time pass until a moment; one that is past changes nothing."""
        self._now = max(self._now, moment)

    def move_by(self, duration: timedelta) -> None:
        """Let time pass."""
        self.move_to(self._now + duration)
