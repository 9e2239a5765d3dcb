"""Sends events to one address outside. Each address has a loop of its own, so that a slow one delays no other."""

import time

from orchestrator.loops import TickResult
from orchestrator.outbox import Outbox

AT_ONCE = 32
WAIT_SECONDS = 0.2
FORGET_SECONDS = 10.0
"""How often the history is cut to its size, while it grows."""


class Courier:
    """Tells one address what it is due. Several may run: they skip one another's events."""

    def __init__(self, outbox: Outbox, url: str, number: int) -> None:
        self.name = f"webhooks-{number}"
        self._outbox = outbox
        self._url = url
        self._forgot_at = float("-inf")

    def tick(self) -> TickResult:
        """Send a bounded number of events, one of each instance at the most."""
        sent = self._outbox.send_due(self._url, AT_ONCE)
        if not sent:
            until = self._outbox.next_due(self._url)
            wait = WAIT_SECONDS if until is None else min(WAIT_SECONDS, max(0.0, until.total_seconds()))
            return TickResult(done=0, wait=wait)
        if time.monotonic() - self._forgot_at >= FORGET_SECONDS:
            self._outbox.forget()
            self._forgot_at = time.monotonic()
        return TickResult(done=sent, wait=0.0)
