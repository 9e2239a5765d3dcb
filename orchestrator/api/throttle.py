"""How often one sender may knock, counted in the memory of this process."""

from collections import deque

LIMIT = 300
WINDOW_SECONDS = 1.0


class Throttle:
    """At most `limit` admissions in every second for each key. For one thread: the event loop's.

    What is remembered is bounded by what is admitted in one second: keys that have been silent for longer are dropped.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._admitted: dict[tuple[str, str], deque[float]] = {}

    def admit(self, key: tuple[str, str], now: float) -> bool:
        """Admit one more, or refuse it; what is refused does not count.

        >>> throttle = Throttle(limit=1)
        >>> [throttle.admit(("peer", "slug"), now) for now in (0.0, 0.9, 1.0)]
        [True, False, True]

        Args:
            now: Seconds of a clock that only goes forward.
        """
        self._drop_silent(now)
        moments = self._admitted.pop(key, None) or deque()
        while moments and moments[0] <= now - WINDOW_SECONDS:
            moments.popleft()
        is_admitted = len(moments) < self._limit
        if is_admitted:
            moments.append(now)
        self._admitted[key] = moments
        return is_admitted

    def _drop_silent(self, now: float) -> None:
        while self._admitted:
            key, moments = next(iter(self._admitted.items()))
            if moments[-1] > now - WINDOW_SECONDS:
                return
            del self._admitted[key]
