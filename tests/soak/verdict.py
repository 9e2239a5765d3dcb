"""Holds the samples of a run against what must not grow."""

from collections.abc import Sequence
from statistics import linear_regression, median
from typing import Final

from tests.soak.samples import Sample

WARM_UP_HOURS: Final = 2.0
"""So long may memory settle; a shorter run judges its second half."""
SLOPE: Final = 0.01
"""Memory may grow by this part an hour."""
LEAST_HOURS: Final = 2.0
"""Behind the warm-up: over less than that, what is noise and what grows cannot be told apart by a slope."""
SHORT_GROWTH: Final = 1.3
"""In a shorter run the last quarter may be so many times what the quarter before was."""
STEADY: Final = ("PostgreSQL connections", "PostgreSQL dead rows", "Redis keys")
SLACK: Final = {"PostgreSQL connections": 10.0, "PostgreSQL dead rows": 50_000.0, "Redis keys": 50.0}
REDIS_SLACK_MB: Final = 2.0


def judge(samples: Sequence[Sample], resting: Sample, base: Sample) -> list[str]:
    """Say what is wrong.

    Args:
        samples: Under load, in order.
        resting: After the load had ended and everything was done.
        base: Before the load began.
    """
    wrong = [f"{name}: {resting[name]:g}, expected none" for name in _NONE if resting[name]]
    if resting["Redis MB"] > base["Redis MB"] + REDIS_SLACK_MB:
        wrong.append(f"Redis holds {resting['Redis MB']:.1f} MB at rest, {base['Redis MB']:.1f} before")
    late = behind_warm_up(samples)
    if len(late) < 4:
        return [*wrong, f"{len(late)} samples behind the warm-up are too few"]
    if not samples[-1]["accepted"] > samples[0]["accepted"]:
        wrong.append("nothing was accepted under load")
    return [*wrong, *_growing(late)]


_NONE: Final = ("PostgreSQL deadlocks", "Redis keys for ever", "open", "failed")


def behind_warm_up(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Leave out the time in which memory settles."""
    hours = min(WARM_UP_HOURS, samples[-1]["hours"] / 2) if samples else 0
    return [each for each in samples if each["hours"] >= hours]


def slope(samples: Sequence[Sample], name: str) -> float:
    """Give by which part of its median something grows in an hour."""
    line = linear_regression([each["hours"] for each in samples], [each[name] for each in samples])
    return line.slope / median(each[name] for each in samples)


def _growing(late: Sequence[Sample]) -> list[str]:
    wrong = []
    half = len(late) // 2
    for name in [name for name in late[0] if name.startswith("MB of ")]:
        if late[-1]["hours"] - late[0]["hours"] >= LEAST_HOURS:
            if (part := slope(late, name)) > SLOPE:
                wrong.append(f"{name} grows by {part:.1%} an hour")
        elif (after := _median(late[half:], name)) > SHORT_GROWTH * (before := _median(late[:half], name)):
            wrong.append(f"{name} went from {before:.0f} to {after:.0f}")
    for name in STEADY:
        before, after = _median(late[:half], name), _median(late[half:], name)
        if after > before * SHORT_GROWTH + SLACK[name]:
            wrong.append(f"{name} went from {before:g} to {after:g}")
    return wrong


def _median(samples: Sequence[Sample], name: str) -> float:
    return median(each[name] for each in samples)
