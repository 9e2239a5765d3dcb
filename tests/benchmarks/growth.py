"""How cost grows with instances, steps, payload and workers: `python -m tests.benchmarks.growth`, and in the full run.

The model has four numbers: seconds = (instance x I + step x I x S + megabyte x I x S x P) / workers^gain

I instances of S steps whose outputs have P megabytes each, `workers` worker processes. It is fitted to some points
(least squares of the relative errors) and then held against all, of which it has not seen each third.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import embedded
from orchestrator.embedded import Servers
from tests.benchmarks import ours
from tests.benchmarks.works import Say

WITHIN = 0.20
"""The relative error within which the model has to predict a measured point."""

REPEATS = 3
UNSEEN = 3
"""Each so many-th point is kept from the fit."""

SHAPES = (
    (200, 1, 0),
    (800, 1, 0),
    (100, 10, 0),
    (400, 10, 0),
    (100, 40, 0),
    (100, 10, 8),
    (400, 5, 4),
    (200, 10, 16),
    (800, 3, 2),
)
"""Instances, steps of each, and kilobytes of each output."""

GAINS = tuple(step / 50 for step in range(-25, 76))
"""Exponents tried: 0 is no gain by a second worker, 1 is twice the speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured combination: the best of some repeats, in seconds."""

    instances: int
    steps: int
    kilobytes: int
    workers: int
    seconds: float

    @property
    def terms(self) -> tuple[float, float, float]:
        """Give what each cost is multiplied with."""
        steps = self.instances * self.steps
        return self.instances, steps, steps * self.kilobytes / 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What an instance, a step and a megabyte cost one worker process in seconds, and what more workers gain."""

    instance: float
    step: float
    megabyte: float
    gain: float

    def predict(self, point: Point) -> float:
        """Give the seconds a combination should take."""
        each = (self.instance, self.step, self.megabyte)
        work = sum(cost * times for cost, times in zip(each, point.terms, strict=True))
        return float(work / point.workers**self.gain)

    def error(self, point: Point) -> float:
        """Give how far the prediction is above the measured seconds, as a part of them."""
        return self.predict(point) / point.seconds - 1


def fit(points: Sequence[Point]) -> Model:
    """Find the model whose relative errors have the least squares."""
    fitted = (_fit_with(points, gain) for gain in GAINS)
    return min(fitted, key=lambda model: sum(model.error(point) ** 2 for point in points))


def _fit_with(points: Sequence[Point], gain: float) -> Model:
    import numpy as np  # an optional dependency

    rows = np.array([np.array(point.terms) / point.workers**gain / point.seconds for point in points])
    costs = _not_negative(rows, np.ones(len(points)))
    return Model(instance=costs[0], step=costs[1], megabyte=costs[2], gain=gain)


def _not_negative(rows: Any, wanted: Any) -> list[float]:
    """Solve least squares without negative costs: those that come out so are left out, the worst first."""
    import numpy as np

    kept = list(range(rows.shape[1]))
    while kept:
        found = np.linalg.lstsq(rows[:, kept], wanted, rcond=None)[0]
        if min(found) >= 0:
            return [float(found[kept.index(n)]) if n in kept else 0.0 for n in range(rows.shape[1])]
        kept.pop(int(np.argmin(found)))
    return [0.0] * rows.shape[1]


def measure_growth(servers: Servers, logs: Path, say: Say) -> tuple[Model, list[Point]]:
    """Measure all shapes with one and with two workers, and fit the model to what is not kept from it."""
    points = [point for workers in (1, 2) for point in _points(servers, logs, workers, say)]
    return fit([point for number, point in enumerate(points) if (number + 1) % UNSEEN]), points


def _points(servers: Servers, logs: Path, workers: int, say: Say) -> list[Point]:
    with ours.running(servers, logs, "log", workers=workers) as bench:
        _seconds(bench, 200, 5, 0)
        points = []
        for instances, steps, kilobytes in SHAPES:
            seconds = min(_seconds(bench, instances, steps, kilobytes) for _ in range(REPEATS))
            points.append(
                Point(instances=instances, steps=steps, kilobytes=kilobytes, workers=workers, seconds=seconds)
            )
        say(f"{bench.engine}: {len(points)} points of the cost model with {workers} workers")
    return points


def _seconds(bench: ours.Orchestrator, instances: int, steps: int, kilobytes: int) -> float:
    blocks = [step | {"params": {"message": "x" * (kilobytes * 1024)}} for step in ours.flat(steps, "log")]
    sequence_id = bench.define(f"growth-{time.monotonic_ns()}", blocks)
    began = time.perf_counter()
    ids = bench.start(sequence_id, instances)
    return bench.wait(ids, began, ours.FINE_SECONDS)


def lines_of(model: Model, points: Sequence[Point]) -> list[str]:
    """Write the model, and each point beside its prediction."""
    errors = [model.error(point) for point in points]
    within = sum(abs(error) <= WITHIN for error in errors)
    lines = [
        f"cost model: {model.instance * 1000:.3f} ms an instance, {model.step * 1000:.3f} ms a step, "
        f"{model.megabyte * 1000:.2f} ms a megabyte of outputs; two workers are {2**model.gain:.2f} x as fast as one"
    ]
    for number, (point, error) in enumerate(zip(points, errors, strict=True), start=1):
        lines.append(
            f"  {point.workers} workers, {point.instances:4d} x {point.steps:2d} steps of {point.kilobytes:2d} KB: "
            f"{point.seconds:6.2f} s measured, {model.predict(point):6.2f} s predicted ({error:+.0%})"
            + ("" if number % UNSEEN else " unseen")
        )
    middle = statistics.median(abs(error) for error in errors)
    lines.append(f"  {within} of {len(points)} points within {WITHIN:.0%}; median error {middle:.0%}")
    return lines


def main() -> None:
    """Measure and print."""
    folder = Path("build")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder, ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary) / "servers"
        try:
            print(*lines_of(*measure_growth(embedded.start(directory), folder / "bench-logs", print)), sep="\n")
        finally:
            embedded.remove(directory)


if __name__ == "__main__":
    main()
