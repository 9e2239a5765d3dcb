"""Histograms kept as counters: one for each bucket, and one for the sum in microseconds."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the buckets, in seconds; one more bucket takes the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """How durations are distributed.

    Args:
        buckets: Upper bound as Prometheus writes it, and how many are no longer than that; the last is `+Inf`.
        seconds: Their sum.
    """

    buckets: list[tuple[str, float]]
    seconds: float


def bucket_name(name: str, number: int) -> str:
    """Name the counter of a bucket, by its number from 0."""
    return f"{name}:{number}"


def sum_name(name: str) -> str:
    """Name the counter of the sum."""
    return f"{name}:us"


def counts_of(name: str, durations: Iterable[float]) -> dict[str, int]:
    """Count durations in seconds.

    >>> counts_of("d", [0.005, 0.006])
    {'d:0': 1, 'd:us': 11000, 'd:1': 1}
    """
    counts: dict[str, int] = {}
    for seconds in durations:
        added = {bucket_name(name, bisect_left(BOUNDS, seconds)): 1, sum_name(name): round(seconds * 1e6)}
        for each, count in added.items():
            counts[each] = counts.get(each, 0) + count
    return counts


def distribution(name: str, counts: Mapping[str, int]) -> Distribution:
    """Read a histogram from counters; those that are missing are 0."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for number in range(len(BOUNDS) + 1):
        total += counts.get(bucket_name(name, number), 0)
        buckets.append((str(BOUNDS[number]) if number < len(BOUNDS) else "+Inf", total))
    return Distribution(buckets=buckets, seconds=counts.get(sum_name(name), 0) / 1e6)
