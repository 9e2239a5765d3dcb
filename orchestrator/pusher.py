"""Pushes tasks of push queues to their addresses."""

import time

from orchestrator.loops import TickResult
from orchestrator.pushing import Pushes

AT_ONCE = 16
"""Tasks of one queue in a tick; those of all queues go out at the same time."""
WAIT_SECONDS = 0.2
UNASKED_SECONDS = 1.0
"""Wait while no queue is a push queue: that one has become one is seen then."""
FORGET_SECONDS = 60.0


class Pusher:
    """Looks for tasks to push. Several may run: a try of a task is made by one of them."""

    name = "pusher"

    def __init__(self, pushes: Pushes) -> None:
        self._pushes = pushes
        self._forgot_at = float("-inf")

    def tick(self) -> TickResult:
        """Push a bounded number of tasks."""
        if time.monotonic() - self._forgot_at >= FORGET_SECONDS:
            self._pushes.forget_ended()
            self._forgot_at = time.monotonic()
        if not self._pushes.is_asked_to_push():
            return TickResult(done=0, wait=UNASKED_SECONDS)
        pushed = self._pushes.push_due(AT_ONCE)
        if pushed:
            return TickResult(done=pushed, wait=0.0)
        until = self._pushes.next_due()
        return TickResult(done=0, wait=WAIT_SECONDS if until is None else _until(until.total_seconds()))


def _until(seconds: float) -> float:
    """Give the wait for a moment; one that has passed belongs to a task in somebody's hands, and is not urgent."""
    return min(WAIT_SECONDS, seconds) if seconds > 0 else WAIT_SECONDS
