"""The works, and how often they are done. An engine has to offer the first four; it answers with raw samples.

W1  many instances of a few no-op steps, all started at once: steps per second
W2  one instance of no-op steps on an idle system: milliseconds of every step
W3  one instance that runs many no-op steps in parallel and joins them: seconds
W4  one long chain of no-op steps: milliseconds of every step, at its beginning and at its end;
    in the long form also one of 100,000 steps

The others are ours alone, each in a module of its own:

W5  instances of one step created through HTTP, singly and in batches: completed per second        (web.py)
W6  from a signal, and from the completion by an HTTP worker, to the start of the next step: ms    (web.py)
W7  very many sleeping instances, 1,000 due per second: lateness, idle CPU, memory                 (sleepers.py)
W8  W1 while a transaction holds a snapshot: loss                                                  (burdens.py)
W9  W1 and W2 beside much finished history: loss                                                   (burdens.py)
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

W1_INSTANCES, W1_STEPS, W1_STARTED_TOGETHER = 500, 10, 100
W2_STEPS = 20
W3_WIDTH = 500
W4_STEPS, W4_EDGE = 2000, 200

SHARED = {
    "W1": "steps/s",
    "W2_p50_ms": "ms",
    "W2_p99_ms": "ms",
    "W3_s": "s",
    "W4_first_ms": "ms",
    "W4_last_ms": "ms",
}
"""Names and units of the figures every engine has, in the order of the table."""

OWN = {
    "W4_long_first_ms": "ms",
    "W4_long_last_ms": "ms",
    "W5_single": "instances/s",
    "W5_batch": "instances/s",
    "W6_signal_p50_ms": "ms",
    "W6_signal_p99_ms": "ms",
    "W6_task_p50_ms": "ms",
    "W6_task_p99_ms": "ms",
    "W7_late_p99_ms": "ms",
    "W7_idle_core_pct": "% of a core",
    "W7_memory_growth_pct": "%",
    "W8_loss_pct": "%",
    "W9_W1_loss_pct": "%",
    "W9_W2_loss_pct": "%",
}
"""Those that only ours has. A loss below zero is a gain, by chance."""

UNITS = SHARED | OWN

IDLE_SECONDS = 0.1
"""Pause before each instance of W2, so that it finds an idle system."""

Samples = dict[str, list[float]]
"""Values by name, one for each repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleepers:
    """How large W7 is: instances asleep, seconds without anything due, and seconds of 1,000 due each."""

    asleep: int
    idle_seconds: float
    due_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How often each work is done, and how large those of ours are. W1 to W4 are the same in all forms.

    Args:
        name: How the form is called in the file.
        repeats: How often a work is done; W8, W9 and the long W4 are done once, they are means in themselves.
        w2_instances: Instances of W2 in each repeat.
        w4_long: Steps of the long chain; 0 leaves it out.
        w5: Instances created by single requests, and in batches.
        w6: Signals, and completions, in each repeat.
        w7: Size of W7.
        w8_seconds: How long the snapshot is held.
        w9_megabytes: Size of the finished history.
        with_growth: Fit the cost model as well (growth.py).
    """

    name: str
    repeats: int
    w2_instances: int
    w4_long: int
    w5: tuple[int, int]
    w6: int
    w7: Sleepers
    w8_seconds: float
    w9_megabytes: int
    with_growth: bool = False

    def with_repeats(self, repeats: int | None) -> "Form":
        """Give the same form with another number of repeats; None leaves it."""
        return self if repeats is None else replace(self, repeats=repeats)


FULL = Form(
    name="full",
    repeats=5,
    w2_instances=50,
    w4_long=100_000,
    w5=(2_000, 6_000),
    w6=200,
    w7=Sleepers(asleep=1_000_000, idle_seconds=20.0, due_seconds=10),
    w8_seconds=600.0,
    w9_megabytes=10_240,
    with_growth=True,
)
SHORT = Form(
    name="short",
    repeats=2,
    w2_instances=15,
    w4_long=0,
    w5=(1_000, 3_000),
    w6=50,
    w7=Sleepers(asleep=50_000, idle_seconds=5.0, due_seconds=4),
    w8_seconds=20.0,
    w9_megabytes=200,
)


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
    samples: Samples = {name: [] for name in SHARED}
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
    found |= {"W2_p50_ms": percentile(durations, 50), "W2_p99_ms": percentile(durations, 99)}
    found["W3_s"] = bench.fan_out()
    found["W4_first_ms"], found["W4_last_ms"] = bench.long_chain().edges_ms(W4_EDGE)
    return found


def percentile(values: Sequence[float], percent: int) -> float:
    """Give a percentile of at least two values, between those next to it.

    >>> percentile([1.0, 2.0, 4.0], 50), percentile([0.0, 100.0], 99)
    (2.0, 99.0)
    """
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


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
