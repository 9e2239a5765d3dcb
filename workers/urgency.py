"""How urgent the most urgent work is that waits for this worker (sequences contract §9.3).

A flow yields between two of its steps when one of a higher priority is due and no worker is free for it. Who carries on
with a flow looks for such work now and then: a look at each step would cost as much as a claim.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from orchestrator.errors import StoreUnavailable

LOOK_EVERY_SECONDS = 0.1


class Urgency:
    """The highest priority that waits, as it was a moment ago.

    Args:
        look: Asks the store.
    """

    def __init__(self, look: Callable[[], int], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._seen = -1

    def now(self) -> int:
        """Give it; -1 while nothing is known to wait."""
        if self._monotonic() - self._looked_at >= LOOK_EVERY_SECONDS:
            # A store that does not answer must not cost the outcome that is about to be reported.
            with suppress(StoreUnavailable):
                self._seen = self._look()
            self._looked_at = self._monotonic()
        return self._seen

    def noted(self) -> None:
        """Note that the most urgent step has just been claimed: nothing more urgent waits on its queue."""
        self._seen = -1
        self._looked_at = self._monotonic()
