"""When to look again at an instance that is waited for."""

import time
from collections.abc import Callable

from orchestrator.client.shapes import Instance
from orchestrator.errors import ServerUnavailable, WaitTimedOut

FIRST_LOOK, LONGEST_LOOK, GROWTH = 0.05, 2.0, 1.5
"""Seconds between looks: short flows are noticed at once, long ones cost a request every two seconds."""
OUTAGE_SECONDS = 60.0
"""How long the server may be away before waiting is given up: a restart or a fail-over takes less."""


class Watch:
    """One wait for one instance: told what each look has shown, it says how long to pause, or that it is over.

    Args:
        timeout: Seconds; None waits for as long as it takes.
        clock: Seconds that never go back.
    """

    def __init__(
        self, instance_id: object, timeout: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._instance_id = instance_id
        self._clock = clock
        self._began = self._seen_at = clock()
        self._deadline = None if timeout is None else self._began + timeout
        self._pause = FIRST_LOOK
        self._state = "not seen yet"

    def after(self, instance: Instance) -> float | None:
        """Say how long to pause before the next look; None if the instance has settled. WaitTimedOut at the end."""
        if instance.is_settled:
            return None
        self._seen_at, self._state = self._clock(), instance.state
        return self._next()

    def after_outage(self, error: ServerUnavailable) -> float:
        """Say how long to pause while the server is away; raises the error after a minute of it."""
        if self._clock() - self._seen_at > OUTAGE_SECONDS:
            raise error
        return self._next()

    def _next(self) -> float:
        left = LONGEST_LOOK if self._deadline is None else self._deadline - self._clock()
        if left <= 0:
            waited = self._clock() - self._began
            raise WaitTimedOut(f"instance {self._instance_id} has not ended after {waited:.1f} s; it is {self._state}")
        pause = min(self._pause, left)
        self._pause = min(LONGEST_LOOK, self._pause * GROWTH)
        return pause
