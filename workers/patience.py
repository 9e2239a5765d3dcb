"""Waiting for a store that does not answer: with jitter, and not for ever."""

import random
import time

import structlog

log = structlog.get_logger()


class Patience:
    """Waits between tries until a time has passed, then lets the error go on.

    Args:
        seconds: How long to go on trying.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._pause = 0.05

    def wait(self, error: Exception) -> None:
        """Wait before the next try; raises `error` when there is no time left."""
        if time.monotonic() >= self._until:
            raise error
        log.warning("store_unavailable", error=str(error), retry_in_seconds=round(self._pause, 2))
        time.sleep(self._pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        self._pause = min(self._pause * 2, 2.0)
