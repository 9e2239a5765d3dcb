"""What the peers have in common: W1 to W4 over five things that each has to know."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from tests.benchmarks.ours import COARSE_SECONDS, FINE_SECONDS, WORK_SECONDS
from tests.benchmarks.works import (
    W1_INSTANCES,
    W1_STARTED_TOGETHER,
    W1_STEPS,
    W2_STEPS,
    W3_WIDTH,
    W4_STEPS,
    Chain,
)

DONE, FAILED = "done", "failed"
"""States every peer's own words are put into; others are given as they are."""


class Rival(ABC):
    """Another engine as a `Bench`.

    Its workflows are `steps(length)`, which returns when each step has ended, and `fan_out(width)`.
    """

    engine: str

    @abstractmethod
    def start(self, workflow: str, count: int, argument: int) -> list[str]:
        """Start workflows; returns their ids."""

    @abstractmethod
    def states(self, ids: Sequence[str]) -> dict[str, int]:
        """Count the workflows in each state."""

    @abstractmethod
    def recorded(self, ids: Sequence[str]) -> int:
        """Count the steps the store has kept of workflows."""

    @abstractmethod
    def facts(self, id_: str) -> Chain:
        """Read when a finished workflow of steps was accepted and when its steps had ended."""

    def throughput(self) -> float:
        """Do W1."""
        began = time.perf_counter()
        ids: list[str] = []
        while len(ids) < W1_INSTANCES:
            ids += self.start("steps", min(W1_STARTED_TOGETHER, W1_INSTANCES - len(ids)), W1_STEPS)
        took = self.wait(ids, began, COARSE_SECONDS)
        steps = W1_INSTANCES * W1_STEPS
        self._expect(ids, steps)
        return steps / took

    def chain(self) -> Chain:
        """Do one workflow of W2."""
        return self._chain(W2_STEPS)

    def fan_out(self) -> float:
        """Do W3."""
        began = time.perf_counter()
        ids = self.start("fan_out", 1, W3_WIDTH)
        took = self.wait(ids, began, FINE_SECONDS)
        self._expect(ids, W3_WIDTH)
        return took

    def long_chain(self) -> Chain:
        """Do W4."""
        return self._chain(W4_STEPS)

    def wait(self, ids: Sequence[str], began: float, pause: float) -> float:
        """Wait until all are done; returns the seconds since `began`."""
        while True:
            states = self.states(ids)
            took = time.perf_counter() - began
            if states.get(DONE) == len(ids):
                return took
            if took > WORK_SECONDS or FAILED in states:
                raise RuntimeError(f"after {took:.1f} s the workflows of {self.engine} are {states}")
            time.sleep(pause)

    def _chain(self, length: int) -> Chain:
        ids = self.start("steps", 1, length)
        self.wait(ids, time.perf_counter(), COARSE_SECONDS)
        self._expect(ids, length)
        return self.facts(ids[0])

    def _expect(self, ids: Sequence[str], steps: int) -> None:
        """Check that every step has been kept."""
        found = self.recorded(ids)
        if found != steps:
            raise RuntimeError(f"{self.engine} has recorded {found} steps, {steps} expected")
