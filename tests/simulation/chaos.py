"""What goes wrong, and when: one source of chance for all faults of a case."""

from collections import Counter
from collections.abc import Callable
from random import Random

from tests.simulation.cases import Case

CHEAP = frozenset({"hint_lost", "hint_twice", "hint_late", "request_repeated", "report_repeated", "batch_broken_up"})
"""Faults that happen in the best of worlds; a case has as many of them as come."""


class Chaos:
    """Decides at every place where something can go wrong whether it does.

    Args:
        now: Tells the seconds since the beginning.
        note: Writes a line of the history.
    """

    def __init__(self, case: Case, random: Random, now: Callable[[], float], note: Callable[[str], None]) -> None:
        self._case = case
        self._now = now
        self._note = note
        self.random = random
        self.happened: Counter[str] = Counter()
        self.count = 0
        self._spent = 0

    def happens(self, kind: str, what: str = "", *, weight: float = 1.0) -> bool:
        """Tell whether a fault of a kind happens here and now.

        Args:
            weight: How much less probable it is here than where something is at stake.
        """
        rate = self._case.faults.get(kind)
        if rate is None or self.is_over or self.random.random() >= rate * weight:
            return False
        number, self.count = self.count, self.count + 1
        self._spent += 0 if kind in CHEAP else 1
        if number in self._case.spared:
            return False
        self.happened[kind] += 1
        self._note(f"  !! fault {number}: {kind} {what}")
        return True

    @property
    def is_over(self) -> bool:
        """Whether nothing goes wrong any more."""
        return self._spent >= self._case.most_faults or self._now() >= self._case.heals_at

    def between(self, low: float, high: float) -> float:
        """Give a number of seconds."""
        return low + (high - low) * self.random.random()
