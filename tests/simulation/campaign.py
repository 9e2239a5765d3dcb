"""Many seeds: which of them go wrong, and how fast they are played."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

from tests.simulation.cases import SEEDS_PER_PROGRAM, Case, calm, case_of
from tests.simulation.mutants import broken
from tests.simulation.world import play

BATCH = 5 * SEEDS_PER_PROGRAM


@dataclass
class Findings:
    """What some seeds have shown.

    Attributes:
        wrong: What goes wrong, by seed.
        faults: How often each kind of fault has happened.
        seconds: Time of the processor.
    """

    seeds: int = 0
    wrong: dict[int, str] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, other: "Findings") -> None:
        """Take over the findings of others."""
        self.seeds += other.seeds
        self.wrong |= other.wrong
        self.faults.update(other.faults)
        self.seconds += other.seconds


@lru_cache(maxsize=4)
def _ends_of(text: str) -> list[Any]:
    played = play(Case.read(text))
    if played.wrong:
        raise AssertionError(f"goes wrong although nothing does: {played.wrong}")
    return played.ends


def ends_when_calm(case: Case) -> list[Any]:
    """Give how a case ends if nothing goes wrong."""
    return _ends_of(calm(case).text())


def judge(case: Case, *, mutant: str = "") -> tuple[str | None, dict[str, int]]:
    """Say what goes wrong in a case, None if nothing does, and what faults it has seen."""
    expected = ends_when_calm(case) if case.is_comparable else None
    if mutant:
        with broken(mutant):
            played = play(case)
    else:
        played = play(case)
    wrong = played.wrong
    if wrong is None and expected is not None and played.ends != expected:
        wrong = f"ends otherwise than without faults: {_difference(expected, played.ends)}"
    return wrong, played.faults


def _difference(expected: list[Any], found: list[Any]) -> str:
    for number, (wanted, seen) in enumerate(zip(expected, found, strict=False)):
        if wanted[0] != seen[0]:
            return f"instance {number} is {seen[0]} and not {wanted[0]}"
        for name in sorted(wanted[1].keys() | seen[1].keys()):
            if wanted[1].get(name) != seen[1].get(name):
                return f"instance {number}, {name}: {seen[1].get(name)} and not {wanted[1].get(name)}"
    return "other instances"


def check_seeds(seeds: Iterable[int], mutant: str = "", *, stops: bool = False) -> Findings:
    """Play some seeds, up to the first that goes wrong if wished so."""
    findings, began = Findings(), time.process_time()
    for seed in seeds:
        wrong, faults = judge(case_of(seed), mutant=mutant)
        findings.seeds += 1
        findings.faults.update(faults)
        if wrong is not None:
            findings.wrong[seed] = wrong
            if stops:
                break
    findings.seconds = time.process_time() - began
    return findings


def campaign(seeds: range, processes: int, told: Callable[[Findings], None] = lambda _findings: None) -> Findings:
    """Play many seeds in several processes."""
    batches = [seeds[start : start + BATCH] for start in range(0, len(seeds), BATCH)]
    findings = Findings()
    if processes == 1:
        for batch in batches:
            findings.add(check_seeds(batch))
            told(findings)
        return findings
    # Spawned, not forked: whoever asks may have threads.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for found in pool.map(check_seeds, batches):
            findings.add(found)
            told(findings)
    return findings
