"""Draws the figures: one plot of what all engines do, one of our own works against their bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.figures import BARS, OURS, PEERS, Figure, is_at_least
from tests.benchmarks.works import OWN, SHARED, digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {OURS: "#1b6ca8", "dbos": "#d98032", "absurd": "#5a9367", "restate": "#8b6bb1"}
BETTER = {True: "more is better", False: "less is better"}


def draw(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Draw the plots as PNG and SVG; returns the files. None are drawn where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"
    written = _engines(figures, folder / "bench-engines")
    if any(figure.name in OWN for figure in figures):
        written += _own(figures, folder / "bench-own")
    return written


def _engines(figures: Sequence[Figure], path: Path) -> list[Path]:
    """Give each of the shared works a panel, and each engine a column with its spread."""
    import matplotlib.pyplot as plt

    engines = [engine for engine in (OURS, *PEERS) if any(figure.engine == engine for figure in figures)]
    plot, panels = plt.subplots(2, 3, figsize=(11, 6.5), layout="constrained")
    for axes, (name, unit) in zip(panels.flat, SHARED.items(), strict=True):
        found = {figure.engine: figure for figure in figures if figure.name == name}
        shown = [engine for engine in engines if engine in found]
        _columns(axes, [found[engine] for engine in shown], shown)
        axes.set_title(f"{name.removesuffix('_ms').removesuffix('_s').replace('_', ' ')} ({BETTER[name == 'W1']})")
        axes.set_ylabel(unit)
    plot.suptitle(_heading("W1 to W4 by engine", figures))
    return _save(plot, path)


def _columns(axes: "Axes", found: Sequence[Figure], labels: Sequence[str]) -> None:
    tops = [figure.value for figure in found]
    below = [figure.value - figure.spread[0] for figure in found]
    above = [figure.spread[1] - figure.value for figure in found]
    colors = [COLORS[figure.engine] for figure in found]
    axes.bar(labels, tops, color=colors, yerr=(below, above), capsize=4, ecolor="#444444")
    for place, figure in enumerate(found):
        axes.annotate(
            digits(figure.value),
            (place, figure.spread[1]),
            ha="center",
            va="bottom",
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=9,
        )
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def _own(figures: Sequence[Figure], path: Path) -> list[Path]:
    """Give each work that has a bar a line: the value as a part of its bar, met to the side that is better."""
    import matplotlib.pyplot as plt

    values = {figure.name: figure for figure in figures if figure.engine == OURS}
    lines = [(name, bar) for name, _, bar in BARS if name in values]
    plot, axes = plt.subplots(figsize=(11, 0.42 * len(lines) + 1.6), layout="constrained")
    for place, (name, bar) in enumerate(lines):
        figure = values[name]
        low, middle, high = (each / bar for each in (figure.spread[0], figure.value, figure.spread[1]))
        is_met = middle >= 1 if is_at_least(name) else middle <= 1
        axes.plot([low, high], [place, place], color="#444444", linewidth=1.5)
        axes.plot(middle, place, "o", color="#1b6ca8" if is_met else "#b03a2e")
    axes.set_yticks(range(len(lines)), [_label(values[name], bar) for name, bar in lines])
    axes.axvline(1, color="#888888", linestyle="--", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("value / bar (median, minimum to maximum; blue: met, red: missed)")
    axes.spines[["top", "right"]].set_visible(False)
    plot.suptitle(_heading("Works of ours against their bars", figures))
    return _save(plot, path)


def _label(figure: Figure, bar: float) -> str:
    sign = "≥" if is_at_least(figure.name) else "≤"
    name = figure.name.removesuffix("_ms").removesuffix("_pct").removesuffix("_s").replace("_", " ")
    return f"{name}: {digits(figure.value)}  ({sign} {bar:g} {figure.unit})"


def _heading(text: str, figures: Sequence[Figure]) -> str:
    versions = figures[0].versions
    return f"{text}: {versions.get('form')} form, {versions.get('cores')} cores, {str(versions.get('date'))[:10]}"


def _save(plot: Any, path: Path) -> list[Path]:
    import matplotlib.pyplot as plt

    files = [path.with_suffix(f".{kind}") for kind in ("png", "svg")]
    for file in files:
        plot.savefig(file, dpi=130)
    plt.close(plot)
    return files
