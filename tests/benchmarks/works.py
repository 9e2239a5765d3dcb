"""The four works, and how often they are done. An engine has to offer them; it answers with raw samples.

W1  many instances of a few no-op steps, all started at once: steps per second
W2  one instance of no-op steps on an idle system: milliseconds of every step
W3  one instance that runs many no-op steps in parallel and joins them: seconds
W4  one long chain of no-op steps: milliseconds of every step, at its beginning and at its end
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

W1_INSTANCES, W1_STEPS, W1_STARTED_TOGETHER = 500, 10, 100
W2_STEPS = 20
W3_WIDTH = 500
W4_STEPS, W4_EDGE = 2000, 200

UNITS = {
    "W1": "steps/s",
    "W2_p50_ms": "ms",
    "W2_p99_ms": "ms",
    "W3_s": "s",
    "W4_first_ms": "ms",
    "W4_last_ms": "ms",
}
"""Names and units of the figures, in the order of the table."""

IDLE_SECONDS = 0.1
"""Pause before each instance of W2, so that it finds an idle system."""

Samples = dict[str, list[float]]
"""Values by name, one for each repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How often each work is done. The works themselves are the same in both forms."""

    name: str
    repeats: int
    w2_instances: int

    def with_repeats(self, repeats: int | None) -> "Form":
        """Give the same form with another number of repeats; None leaves it."""
        return self if repeats is None else Form(name=self.name, repeats=repeats, w2_instances=self.w2_instances)


FULL = Form(name="full", repeats=5, w2_instances=50)
SHORT = Form(name="short", repeats=2, w2_instances=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Stored facts of one chain of steps, in seconds of one clock.

    Args:
        accepted: When the start was accepted.
        ended: When each step ended, in order.
    """

    accepted: float
    ended: Sequence[float] = field(repr=False)

    def durations_ms(self) -> list[float]:
        """Give the time of each step: from the end of the one before, of the first from the accepted start.

        >>> [round(each, 3) for each in Chain(accepted=1.0, ended=[1.005, 1.006]).durations_ms()]
        [5.0, 1.0]
        """
        before = [self.accepted, *self.ended]
        return [(end - start) * 1000 for start, end in zip(before, self.ended, strict=False)]

    def edges_ms(self, width: int) -> tuple[float, float]:
        """Give the mean time of a step over the first and over the last `width` steps, without the pick-up.

        >>> Chain(accepted=0.0, ended=[1.0, 1.001, 1.002, 1.005, 1.008]).edges_ms(2)
        (1.0, 3.0)
        """
        first = (self.ended[width] - self.ended[0]) / width * 1000
        last = (self.ended[-1] - self.ended[-1 - width]) / width * 1000
        return round(first, 6), round(last, 6)


class Bench(Protocol):
    """An engine that runs and can do the works. Each call ends when the store says `completed`, and checks its rows."""

    engine: str

    def throughput(self) -> float:
        """Do W1; returns steps per second, from the first start call to the last completion seen in the store."""

    def chain(self) -> Chain:
        """Do one instance of W2."""

    def fan_out(self) -> float:
        """Do W3; returns seconds from the start call to the completion seen in the store."""

    def long_chain(self) -> Chain:
        """Do W4."""


Say = Callable[[str], None]


def measure(bench: Bench, form: Form, say: Say) -> Samples:
    """Warm up, then do every work as often as the form says."""
    say(f"{bench.engine}: warm-up")
    bench.throughput()
    for _ in range(3):
        bench.chain()
    bench.fan_out()
    samples: Samples = {name: [] for name in UNITS}
    for repeat in range(1, form.repeats + 1):
        found = _once(bench, form.w2_instances)
        for name, value in found.items():
            samples[name].append(value)
        say(f"{bench.engine}: repeat {repeat} of {form.repeats}: " + shown(found))
    return samples


def _once(bench: Bench, w2_instances: int) -> dict[str, float]:
    found = {"W1": bench.throughput()}
    durations: list[float] = []
    for _ in range(w2_instances):
        time.sleep(IDLE_SECONDS)
        durations += bench.chain().durations_ms()
    percentiles = statistics.quantiles(durations, n=100, method="inclusive")
    found |= {"W2_p50_ms": percentiles[49], "W2_p99_ms": percentiles[98]}
    found["W3_s"] = bench.fan_out()
    found["W4_first_ms"], found["W4_last_ms"] = bench.long_chain().edges_ms(W4_EDGE)
    return found


def shown(values: dict[str, float]) -> str:
    """Write values with their names.

    >>> shown({"W1": 1234.5, "W3_s": 0.5})
    'W1 1234  W3_s 0.500'
    """
    return "  ".join(f"{name} {digits(value)}" for name, value in values.items())


def digits(value: float) -> str:
    """Write a value with the digits that mean something.

    >>> digits(1500.25), digits(12.3456), digits(1.23456)
    ('1500', '12.35', '1.235')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.4g}" if value >= 10 else f"{value:.3f}"
