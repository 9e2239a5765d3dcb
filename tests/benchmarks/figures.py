"""Medians and spreads of samples, and the bars they have to pass."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import ge, le
from typing import Any

from tests.benchmarks.works import UNITS, Samples, digits

OURS = "orchestrator"
PEERS = ("dbos", "absurd", "restate")
"""In the order they are measured in."""
FASTEST, LEAD = "restate", 1.3
"""The peer that W1 is held against, and how many times as fast ours has to be."""


NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the result. `value` is the median over the repeats, `spread` their minimum and maximum."""

    name: str
    value: float
    unit: str
    spread: tuple[float, float]
    engine: str
    versions: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Give the form it has in the file."""
        return asdict(self)


def figures_of(engine: str, samples: Samples, versions: Mapping[str, Any]) -> list[Figure]:
    """Make one figure of the samples of each name that was measured."""
    return [
        Figure(
            name=name,
            value=round(statistics.median(samples[name]), 4),
            unit=unit,
            spread=(round(min(samples[name]), 4), round(max(samples[name]), 4)),
            engine=engine,
            versions=versions,
        )
        for name, unit in UNITS.items()
        if samples.get(name)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a bar. `is_met` is None when it could not be checked."""

    bar: str
    found: str
    is_met: bool | None


BARS: tuple[tuple[str, Callable[[float, float], bool], float], ...] = (
    ("W1", ge, 5000),
    ("W2_p50_ms", le, 0.6),
    ("W2_p99_ms", le, 2),
    ("W3_s", le, 0.15),
    ("W4_first_ms", le, 0.6),
    ("W5_single", ge, 1000),
    ("W5_batch", ge, 3000),
    ("W6_signal_p50_ms", le, 3),
    ("W6_signal_p99_ms", le, 15),
    ("W6_task_p50_ms", le, 3),
    ("W6_task_p99_ms", le, 15),
    ("W7_late_p99_ms", le, 100),
    ("W7_idle_core_pct", le, 5),
    ("W7_memory_growth_pct", le, 5),
    ("W8_loss_pct", le, 10),
    ("W9_W1_loss_pct", le, 5),
    ("W9_W2_loss_pct", le, 5),
)
"""What each figure of ours has to be compared with."""

GROWTH = (("W4_first_ms", "W4_last_ms"), ("W4_long_first_ms", "W4_long_last_ms"))
"""Chains, whose last steps may take hardly longer than the first."""
GROWTH_LIMIT = 1.05


def check_bars(figures: Iterable[Figure]) -> list[Verdict]:
    """Hold the figures against the bars."""
    values = {(figure.engine, figure.name): figure.value for figure in figures}
    ours = {name: value for (engine, name), value in values.items() if engine == OURS}
    verdicts = [_against_peer(ours["W1"], values.get((FASTEST, "W1")))]
    verdicts += [_against_bar(ours.get(name), name, holds, bar) for name, holds, bar in BARS]
    return verdicts + [_growth(ours.get(first), ours.get(last), last) for first, last in GROWTH]


def _against_bar(value: float | None, name: str, holds: Callable[[float, float], bool], bar: float) -> Verdict:
    text = f"{name} {'>=' if holds is ge else '<='} {bar:g} {UNITS[name]}"
    if value is None:
        return Verdict(bar=text, found=NOT_MEASURED, is_met=None)
    return Verdict(bar=text, found=digits(value), is_met=holds(value, bar))


def _growth(first: float | None, last: float | None, name: str) -> Verdict:
    text = f"{name} <= {GROWTH_LIMIT:g} x first"
    if first is None or last is None:
        return Verdict(bar=text, found=NOT_MEASURED, is_met=None)
    return Verdict(bar=text, found=f"{last / first:.2f} x", is_met=last <= GROWTH_LIMIT * first)


def _against_peer(ours: float, peer: float | None) -> Verdict:
    bar = f"W1 >= {LEAD:g} x {FASTEST}"
    if peer is None:
        return Verdict(bar=bar, found=NOT_MEASURED, is_met=None)
    return Verdict(bar=bar, found=f"{ours / peer:.1f} x", is_met=ours >= LEAD * peer)


def all_met(verdicts: Sequence[Verdict]) -> bool:
    """Tell whether no bar was missed; one that could not be checked was not missed."""
    return all(verdict.is_met is not False for verdict in verdicts)


def is_at_least(name: str) -> bool:
    """Tell whether more of a figure is better."""
    return any(each == name and holds is ge for each, holds, _ in BARS)
