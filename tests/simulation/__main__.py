"""Plays seeds: `python -m tests.simulation --seed N [--shrink]`, or many of them: `--seeds 10000`."""

import argparse
import sys
import time
from pathlib import Path

from tests.simulation.campaign import Findings, campaign, check_seeds, judge
from tests.simulation.cases import Case, case_of
from tests.simulation.mutants import MUTANTS, broken
from tests.simulation.shrink import shrink
from tests.simulation.world import play


def main() -> int:
    """Do what the command line says; the exit code is 1 if something goes wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play one seed and tell what happens")
    parser.add_argument("--case", type=Path, help="play a case from a file (JSON, as --shrink writes it)")
    parser.add_argument("--shrink", action="store_true", help="make what goes wrong as small as possible first")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="break the product in this way first")
    parser.add_argument("--mutants", action="store_true", help="find every mutant, each within --seeds")
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to play, without --seed")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    if given.mutants:
        return _every_mutant(range(given.first, given.first + given.seeds))
    if given.seed is None and given.case is None:
        return _many(range(given.first, given.first + given.seeds), given.processes)
    case = Case.read(given.case.read_text(encoding="utf-8")) if given.case else case_of(given.seed)
    if given.shrink:
        case = shrink(
            case, mutant=given.mutant, told=lambda smaller: _say(f"smaller: {len(smaller.text())} characters")
        )
    return _one(case, given.mutant)


def _one(case: Case, mutant: str) -> int:
    wrong, _ = judge(case, mutant=mutant)
    if mutant:
        with broken(mutant):
            played = play(case, is_noted=True)
    else:
        played = play(case, is_noted=True)
    _say(case.text())
    _say("\n".join(played.history))
    _say(f"trace {played.digest}")
    if wrong is not None:
        _say(f"WRONG: {wrong}")
    return 1 if wrong is not None else 0


def _many(seeds: range, processes: int) -> int:
    began = time.monotonic()

    def tell(findings: Findings) -> None:
        if findings.seeds % 400 == 0 or findings.seeds == len(seeds):
            passed = time.monotonic() - began
            _say(f"{findings.seeds} seeds, {passed:.0f} s, {len(findings.wrong)} wrong")

    findings = campaign(seeds, processes, tell)
    for kind, times in findings.faults.most_common():
        _say(f"{times:>8} {kind}")
    rate = findings.seeds / findings.seconds if findings.seconds else 0
    _say(f"{rate:.0f} seeds for each second of a processor")
    for seed, wrong in sorted(findings.wrong.items()):
        _say(f"seed {seed}: {wrong}\n    python -m tests.simulation --seed {seed} --shrink")
    return 1 if findings.wrong else 0


def _every_mutant(seeds: range) -> int:
    missed = []
    for name in MUTANTS:
        found = check_seeds(seeds, name, stops=True)
        if not found.wrong:
            missed.append(name)
        for seed, wrong in found.wrong.items() or {-1: "not found"}.items():
            _say(f"{name}: {found.seeds} seeds, {found.seconds:.1f} s, seed {seed}: {wrong}")
    return 1 if missed else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
