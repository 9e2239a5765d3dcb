"""Many programs, each as it is and under each single crash. `python -m tests.model.campaign --help`."""

import argparse
import copy
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import structlog

from tests.model.compare import Disagreement, Program, play
from tests.model.generate import features, program_of
from tests.model.shrink import shrink

MAX_CRASHES = 6
"""Crash points of one program; those of a longer one are a sample that depends on its seed."""
BATCH = 50


@dataclass
class Findings:
    """What some programs have shown.

    Attributes:
        seen: How often what was seen: block types, kinds of failures, signals, crashes, final states.
        wrong: For each seed with a disagreement the program, with its crash if it took one, and what differs.
    """

    seen: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, tuple[Program, str]] = field(default_factory=dict)

    def add(self, other: "Findings") -> None:
        """Take over the findings of others."""
        self.seen.update(other.seen)
        self.wrong.update(other.wrong)


def check_seeds(seeds: Iterable[int]) -> Findings:
    """Play the programs of some seeds."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    findings = Findings()
    for seed in seeds:
        check_seed(seed, findings)
    return findings


def check_seed(seed: int, findings: Findings) -> None:
    """Play the program of a seed, as it is and with each single crash, up to its first disagreement."""
    findings.seen["programs"] += 1
    findings.seen.update(features(program_of(seed)))
    program = program_of(seed)
    try:
        match = play(program_of(seed))
        findings.seen.update(match.seen)
        findings.seen[f"ends {match.model.state}"] += 1
        findings.seen["events"] += match.events
        for crash in crash_points(seed, match.claimed):
            program = replace(program_of(seed), crash=crash)
            findings.seen.update({f"crash {crash[1]} the commit": 1, "runs with a crash": 1})
            play(replace(program_of(seed), crash=crash))
    except Disagreement as difference:
        findings.wrong[seed] = (program, str(difference))


def crash_points(seed: int, claims: int) -> list[tuple[int, str]]:
    """Give the crashes to try: before and after the commit of each claim."""
    points = [(number, when) for number in range(1, claims + 1) for when in ("before", "after")]
    if len(points) <= MAX_CRASHES:
        return points
    return [points[(seed * 7 + step * len(points) // MAX_CRASHES) % len(points)] for step in range(MAX_CRASHES)]


def fails(program: Program) -> bool:
    """Say whether the sides disagree about a program; one that cannot be played at all does not count."""
    try:
        play(program)
    except Disagreement:
        return True
    except Exception:
        return False
    return False


def report(seed: int, program: Program) -> str:
    """Write the smallest program that shows the disagreement of a seed, with its script and what differs."""
    smallest = shrink(program, fails)
    text = copy.deepcopy(smallest).text()
    try:
        play(smallest)
    except Disagreement as difference:
        return f"seed {seed}\n{text}\n{difference}"
    return f"seed {seed}: gone when made smaller\n{program.text()}"


def main() -> int:
    """Run the campaign; the exit code is 1 if there was any disagreement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed; the others follow")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.programs)
    batches = [seeds[start : start + BATCH] for start in range(0, len(seeds), BATCH)]
    findings, began = Findings(), time.monotonic()
    with ProcessPoolExecutor(given.processes) as pool:
        for number, found in enumerate(pool.map(check_seeds, batches), 1):
            findings.add(found)
            if number % 10 == 0 or number == len(batches):
                passed = time.monotonic() - began
                _say(f"{findings.seen['programs']} programs, {passed:.0f} s, {len(findings.wrong)} wrong")
    _say(f"seeds {seeds.start} to {seeds.stop - 1}")
    for name, count in sorted(findings.seen.items()):
        _say(f"{count:>10} {name}")
    for seed, (program, _) in list(findings.wrong.items())[:5]:
        _say(report(seed, program))
    _say(f"disagreements: {sorted(findings.wrong) or 'none'}")
    return 1 if findings.wrong else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
