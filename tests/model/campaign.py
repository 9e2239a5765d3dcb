"""Many programs, each as it is and under each single crash. `python -m tests.model.campaign --help`."""

import argparse
import copy
import gc
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import structlog

from orchestrator.core.plan import Plan
from tests.model.compare import Disagreement
from tests.model.generate import MAX_BLOCKS, features, program_of
from tests.model.match import play
from tests.model.program import Crash, Program, When
from tests.model.shrink import shrink
from tests.support.drive import MemoryWorld, PureWorld, World

BATCH = 50
ENGINE = 20
"""Every so many-eth program is played on the engine over the store in memory, the others on the core alone."""


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


def check_seeds(seeds: Iterable[int], most: int = MAX_BLOCKS) -> Findings:
    """Play the programs of some seeds, of so many blocks at most."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    findings, usual = Findings(), gc.get_threshold()
    gc.set_threshold(50_000)  # a run leaves little behind: looking for it each 700 objects took a tenth of the time
    try:
        for seed in seeds:
            check_seed(seed, findings, most)
    finally:
        gc.set_threshold(*usual)
    return findings


def check_seed(seed: int, findings: Findings, most: int = MAX_BLOCKS) -> None:
    """Play the program of a seed, as it is and with each single crash, up to its first disagreement."""
    program, world = program_of(seed, most), worlds_of(seed)
    findings.seen["programs"] += 1
    findings.seen["programs on the engine and the store in memory"] += seed % ENGINE == 0
    findings.seen.update(features(program))
    try:
        match = play(program, world())
        findings.seen.update(match.seen)
        findings.seen[f"ends {match.model.state}"] += 1
        findings.seen["events"] += match.events
        points = crash_points(match.commits)
        findings.seen["crash points"] += len(points)
        for crash in points:
            findings.seen[f"crash: {crash.when} the commit of a {match.commits[crash.commit - 1]}"] += 1
            findings.seen["runs with a crash"] += 1
            program = replace(program, crash=crash)
            play(program, world())
    except Disagreement as difference:
        findings.wrong[seed] = (program, str(difference))
    except Exception:
        findings.wrong[seed] = (program, traceback.format_exc())


def worlds_of(seed: int) -> Callable[[], World]:
    """Give what makes the worlds in which the program of a seed is played."""
    plans: dict[int, Plan] = {}
    return MemoryWorld if seed % ENGINE == 0 else lambda: PureWorld(plans=plans)


def crash_points(commits: list[str]) -> list[Crash]:
    """Give every crash that a run can take: before and after each commit, and of each worker outside."""
    return [
        Crash(number, when)
        for number, kind in enumerate(commits, 1)
        for when in When
        if when is not When.WORKER or kind.endswith("of a worker")
    ]


def fails(program: Program, world: Callable[[], World] = PureWorld) -> bool:
    """Say whether the sides disagree about a program; one that cannot be played at all does not count."""
    try:
        play(program, world())
    except Disagreement:
        return True
    except Exception:
        return False
    return False


def report(seed: int, program: Program, difference: str) -> str:
    """Write the smallest program that shows the disagreement of a seed, with its script and what differs."""
    world: Callable[[], World] = MemoryWorld if seed % ENGINE == 0 else PureWorld
    smallest = shrink(program, lambda smaller: fails(smaller, world))
    text = copy.deepcopy(smallest).text()
    try:
        play(smallest, world())
    except Disagreement as smaller:
        difference = str(smaller)
    except Exception:
        difference = traceback.format_exc()
    return f"seed {seed}\n{text}\n{difference}"


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
    _say(f"crash points left out: {findings.seen['crash points'] - findings.seen['runs with a crash']}")
    for seed, (program, difference) in list(findings.wrong.items())[:5]:
        _say(report(seed, program, difference))
    _say(f"disagreements: {sorted(findings.wrong) or 'none'}")
    return 1 if findings.wrong else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
