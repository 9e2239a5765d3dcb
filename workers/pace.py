"""How long the handlers of this process take, as it has seen them run.

A handler that was quick every time may be run several at a time and committed together, as the built-in ones are: what
a step costs is then mostly its commit, and a commit for many costs little more than one. Nobody has to declare it, and
one that turns slow loses the trust at once.
"""

from collections import Counter
from typing import Final

QUICK_SECONDS: Final = 0.001
"""What still counts as quick: less than the commit of one step."""
SLOW_SECONDS: Final = 0.005
"""What ends the trust."""
TRUSTED_AFTER: Final = 5
"""Quick runs in a row that make a handler trusted."""


class Pace:
    """Which handlers are quick. Used by one thread."""

    def __init__(self) -> None:
        self._quick_runs: Counter[str] = Counter()
        self.quick: frozenset[str] = frozenset()

    def note(self, handler: str, seconds: float) -> None:
        """Note one run of a handler."""
        if handler in self.quick:
            if seconds > SLOW_SECONDS:
                self._quick_runs[handler] = 0
                self.quick -= {handler}
            return
        self._quick_runs[handler] = self._quick_runs[handler] + 1 if seconds < QUICK_SECONDS else 0
        if self._quick_runs[handler] >= TRUSTED_AFTER:
            self.quick |= {handler}
