"""Histories of a whole installation, each decided by one seed: whatever goes wrong in it, what must hold holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import check_seeds
from tests.simulation.cases import FAULTS, Case, case_of
from tests.simulation.world import play

SEEDS = 320
"""Seeds of one run of the tests; `make seeds` plays ten thousand, as CI does."""


@pytest.mark.timeout(900)
def test_no_seed_goes_wrong() -> None:
    findings = check_seeds(range(SEEDS))
    told = [
        f"seed {seed}: {wrong}\n  python -m tests.simulation --seed {seed} --shrink"
        for seed, wrong in findings.wrong.items()
    ]
    assert not told, "\n".join(told)
    assert findings.seeds == SEEDS
    # A run in which nothing happened proves nothing.
    assert set(findings.faults) == set(FAULTS)
    assert findings.faults.total() > SEEDS


DIGESTS = """
import sys
from tests.simulation.cases import case_of
from tests.simulation.world import play
print(" ".join(play(case_of(seed), is_noted=True).digest for seed in map(int, sys.argv[1:])))
"""


def test_a_seed_is_played_again_line_by_line_also_in_another_process() -> None:
    seeds = [3, 6, 13, 200]
    here = [play(case_of(seed), is_noted=True).digest for seed in seeds]
    assert here == [play(case_of(seed), is_noted=True).digest for seed in seeds]
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", DIGESTS, *map(str, seeds)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.split() == here
    assert len(set(here)) == len(seeds)


def test_a_case_is_read_as_it_was_written() -> None:
    case = case_of(7)
    assert Case.read(case.text()) == case
