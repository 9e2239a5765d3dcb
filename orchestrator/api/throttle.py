"""How often one sender may knock, counted in the memory of this process, or in Redis for all of them."""

import time
from collections import deque

import anyio.to_thread
import structlog
from redis.exceptions import RedisError

from orchestrator.errors import StoreUnavailable
from queues.request_limit import RequestLimit

log = structlog.get_logger()

LIMIT = 300
WINDOW_SECONDS = 1.0
ABSENCE_SECONDS = 1.0
"""So long is a Redis that has not answered left alone: it must not make every request wait."""


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


class SharedThrottle:
    """Counts requests for all processes while Redis answers, and for this one alone while it does not.

    Args:
        limit: Requests of each key in any second.
        shared: Counts them in Redis; None where there is none.
    """

    def __init__(self, limit: int, shared: RequestLimit | None) -> None:
        self._own = Throttle(limit)
        self._shared = shared
        self._asks_again_at = float("-inf")

    async def admit(self, key: str) -> bool:
        """Admit one more, or refuse it."""
        now = time.monotonic()
        if self._shared is not None and now >= self._asks_again_at:
            try:
                return await anyio.to_thread.run_sync(self._shared.admit, key)
            except (RedisError, StoreUnavailable) as error:
                self._asks_again_at = now + ABSENCE_SECONDS
                log.warning("requests_counted_by_process", error=str(error))
        return self._own.admit(("key", key), now)
