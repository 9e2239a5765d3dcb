"""Medians and spreads of samples, and the bars they have to pass."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.works import UNITS, Samples, digits

OURS, PEER = "orchestrator", "dbos"


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
    """Make one figure of the samples of each name."""
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
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a bar. `is_met` is None when it could not be checked."""

    bar: str
    found: str
    is_met: bool | None


def check_bars(figures: Iterable[Figure]) -> list[Verdict]:
    """Hold the figures against the bars."""
    values = {(figure.engine, figure.name): figure.value for figure in figures}

    def ours(name: str) -> float:
        return values[OURS, name]

    growth = ours("W4_last_ms") / ours("W4_first_ms")
    return [
        Verdict(bar="W1 >= 1500 steps/s", found=digits(ours("W1")), is_met=ours("W1") >= 1500),
        _against_peer(ours("W1"), values.get((PEER, "W1"))),
        Verdict(bar="W2 p50 <= 2 ms", found=digits(ours("W2_p50_ms")), is_met=ours("W2_p50_ms") <= 2),
        Verdict(bar="W3 <= 1 s", found=digits(ours("W3_s")), is_met=ours("W3_s") <= 1),
        Verdict(bar="W4 last <= 1.2 x first", found=f"{growth:.2f} x", is_met=growth <= 1.2),
    ]


def _against_peer(ours: float, peer: float | None) -> Verdict:
    bar = f"W1 >= 2 x {PEER}"
    if peer is None:
        return Verdict(bar=bar, found="not measured", is_met=None)
    return Verdict(bar=bar, found=f"{ours / peer:.1f} x", is_met=ours >= 2 * peer)


def all_met(verdicts: Sequence[Verdict]) -> bool:
    """Tell whether no bar was missed; one that could not be checked was not missed."""
    return all(verdict.is_met is not False for verdict in verdicts)
