"""Tells a run in Markdown and in plots."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.soak.samples import Sample
from tests.soak.verdict import behind_warm_up, slope

PANELS = (
    ("Memory of processes, MB", "MB of "),
    ("Redis, MB", "Redis MB"),
    ("Redis, keys", "Redis keys"),
    ("PostgreSQL, dead rows", "PostgreSQL dead rows"),
    ("PostgreSQL, connections", "PostgreSQL connections"),
    ("PostgreSQL, MB", "PostgreSQL MB"),
)


def report(samples: Sequence[Sample], resting: Sample, base: Sample, wrong: Sequence[str], per_second: float) -> str:
    """Tell a run: what each thing was before, in the middle of it, at its end, at rest, and how it grows."""
    late = behind_warm_up(samples)
    names = [name for name in base if name not in {"hours", "accepted"}]
    hours, accepted = samples[-1]["hours"], samples[-1]["accepted"] - base["accepted"]
    return "\n".join(
        [
            "# A steady load",
            "",
            f"* {hours:.2f} h, {accepted:,.0f} flows accepted ({accepted / hours / 3600:.1f} a second, asked for "
            f"{per_second:g}), {len(samples)} samples",
            f"* Machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
            f"{time.strftime('%Y-%m-%d')}",
            f"* Result: {'nothing grows' if not wrong else 'SOMETHING GROWS'}",
            "",
            "| | before | behind the warm-up, median | last | at rest | growth an hour |",
            "|---|---|---|---|---|---|",
            *(
                f"| {name} | {base[name]:.4g} | {median(each[name] for each in late):.4g} | {samples[-1][name]:.4g} "
                f"| {resting[name]:.4g} | {_growth(late, name)} |"
                for name in names
            ),
            "",
            *(f"* {each}" for each in wrong),
            "",
        ]
    )


def _growth(late: Sequence[Sample], name: str) -> str:
    if len(late) < 2 or not median(each[name] for each in late):
        return "-"
    return f"{slope(late, name):+.2%}"


def draw(samples: Sequence[Sample], path: Path) -> list[Path]:
    """Draw what was held over time as PNG and SVG; returns the files. None are drawn without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot as plt

    plot, panels = plt.subplots(3, 2, figsize=(11, 9), layout="constrained")
    hours = [each["hours"] for each in samples]
    for axes, (title, beginning) in zip(panels.flat, PANELS, strict=True):
        names = [name for name in samples[0] if name.startswith(beginning)]
        for name in names:
            axes.plot(hours, [each[name] for each in samples], label=name.removeprefix("MB of "), linewidth=1.2)
        axes.set(title=title, xlabel="hours", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            axes.legend(fontsize=8, loc="lower right", ncols=2)
    files = [path.with_suffix(f".{kind}") for kind in ("png", "svg")]
    for file in files:
        plot.savefig(file, dpi=120)
    plt.close(plot)
    return files
