"""What a run has shown so far: kept in a file after every round, and told in a report."""

import json
import os
import platform
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.faults.checkers import Found
from tests.faults.nightly.judge import Verdict, too_few
from tests.faults.nightly.pulse import SILENT_SECONDS

SAMPLES = 2000
"""Samples kept of what must stay flat; of more every second one is dropped."""
RESTING_KEYS, RESTING_MEMORY_MB = 200, 500
GROWTH, SLACK = 1.5, 50


@dataclass(slots=True)
class Record:
    """A run, over all its parts.

    Args:
        recovery: By kind of fault, seconds from the healing to the next completed step.
        drained: By kind of fault, seconds from the healing to the end of all that had been accepted.
        counts: By promise, on how many things it was checked.
        silences: How often a worker was silent for so long that it may have been taken for dead.
        samples: What must stay flat: Redis keys, dead tuples of steps, megabytes of the largest process.
    """

    seed: int
    rounds: int = 0
    seconds: float = 0.0
    accepted: int = 0
    silences: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    recovery: dict[str, list[float]] = field(default_factory=dict)
    drained: dict[str, list[float]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def going_on(cls, path: Path, seed: int | None = None) -> "Record":
        """Go on with what a file tells; a new record if there is none, or if another seed is asked for."""
        kept = json.loads(path.read_text()) if path.exists() else None
        if kept is None or seed not in {None, kept["seed"]}:
            return cls(seed=random.SystemRandom().randrange(2**32) if seed is None else seed)
        counters = ("faults", "counts", "answers")
        return cls(**{name: Counter(value) if name in counters else value for name, value in kept.items()})

    def save(self, path: Path) -> None:
        """Write it down, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({each.name: getattr(self, each.name) for each in fields(self)}, indent=1))
        fresh.replace(path)

    def add(self, kind: str, verdicts: Mapping[str, Verdict]) -> None:
        """Count what was checked, and note what was broken."""
        for promise, verdict in verdicts.items():
            self.counts[promise] += verdict.checked
            if verdict.broken:
                self.note(kind, promise, verdict.broken)

    def note(self, kind: str, promise: str, broken: Found) -> None:
        """Note a broken promise."""
        self.violations.append(
            {"round": self.rounds, "fault": kind, "promise": promise, "found": len(broken), "first": broken[:5]}
        )

    def sample(self, values: Mapping[str, float]) -> None:
        """Note what must stay flat."""
        self.samples.append(dict(values))
        if len(self.samples) > SAMPLES:
            self.samples = self.samples[::2]

    def flatness(self) -> Verdict:
        """I11: nothing grows: the last quarter of the samples is like the second one."""
        quarter = len(self.samples) // 4
        if quarter == 0:
            return Verdict(checked=0)
        broken = []
        for name in self.samples[0]:
            early = statistics.median(each[name] for each in self.samples[quarter : 2 * quarter])
            late = statistics.median(each[name] for each in self.samples[-quarter:])
            if late > early * GROWTH + SLACK:
                broken.append(f"{name} went from {early:g} to {late:g}")
        return Verdict(checked=len(self.samples), broken=broken)

    def verdict(self) -> Found:
        """Say all that is wrong with the run."""
        flat = self.flatness()
        wrong = [
            f"round {each['round']} ({each['fault']}): {each['promise']}: {each['first']}" for each in self.violations
        ]
        return wrong + flat.broken + too_few(self.counts, self.rounds, sum(self.faults.values()))

    def report(self, command: Sequence[str]) -> str:
        """Tell the run in Markdown."""
        slowest = sorted(((max(seconds), kind) for kind, seconds in self.recovery.items() if seconds), reverse=True)[:5]
        counts = Counter(self.counts)
        counts["I11 nothing grows"] = self.flatness().checked
        broken = Counter(each["promise"] for each in self.violations)
        broken["I11 nothing grows"] = len(self.flatness().broken)
        return "\n".join(
            [
                "# Faults under load",
                "",
                f"* Command: `{' '.join(command)}`",
                f"* Seed {self.seed}; {sum(self.faults.values())} faults in {self.seconds / 3600:.2f} h; "
                f"{self.accepted} instances accepted",
                f"* Machine: {_machine()}",
                f"* Result: {'nothing was broken' if not self.verdict() else 'PROMISES WERE BROKEN'}",
                "",
                "## Faults, and how long until work went on",
                "",
                "Seconds from the healing to the next completed step, and to the end of all that had been accepted.",
                "",
                "| Fault | Times | Median | Worst | All ended: median | Worst |",
                "|---|---|---|---|---|---|",
                *(
                    f"| {kind} | {times} | {_figures(self.recovery.get(kind))} | {_figures(self.drained.get(kind))} |"
                    for kind, times in sorted(self.faults.items())
                ),
                "",
                "Slowest: " + "; ".join(f"{seconds:.2f} s after {kind}" for seconds, kind in slowest),
                "",
                "## Promises",
                "",
                "| Promise | Checked on | Broken |",
                "|---|---|---|",
                *(f"| {promise} | {count:,} | {broken[promise]} |" for promise, count in sorted(counts.items())),
                "",
                f"Workers were silent for {SILENT_SECONDS:g} s or more {self.silences} times.",
                "",
                "Answers of the API: " + ", ".join(f"{name} {count}" for name, count in self.answers.most_common()),
                "",
                "## What was broken",
                "",
                *([f"* {each}" for each in self.verdict()] or ["Nothing."]),
                "",
            ]
        )


def _figures(seconds: Sequence[float] | None) -> str:
    return f"{statistics.median(seconds):.2f} | {max(seconds):.2f}" if seconds else "- | -"


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
