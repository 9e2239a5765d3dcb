"""The negative control of the simulation: a product that is broken on purpose is found to be broken."""

import pytest

from tests.simulation.campaign import check_seeds, judge
from tests.simulation.cases import case_of
from tests.simulation.mutants import MUTANTS
from tests.simulation.shrink import shrink

FOUND_BY = {
    "bound_ignored": 72,
    "claim_not_tied_to_its_token": 13,
    "claims_never_adopted": 6,
    "ended_flow_is_claimed": 23,
    "join_entered_twice": 56,
    "lease_never_expires": 6,
    "lease_not_looked_at": 188,
    "letter_opened_twice": 136,
    "no_postman": 192,
    "question_costs_the_claims": 45,
}
"""Seeds that are known to find a mutant; others are found by the first few."""
MUTANT_SEEDS = 400
"""Seeds that are tried from there on: what a seed decides changes with the code, and another one must do then."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_every_way_of_breaking_the_product_is_found(mutant: str) -> None:
    first = FOUND_BY.get(mutant, 0)
    assert check_seeds(range(first, first + MUTANT_SEEDS), mutant, stops=True).wrong


@pytest.mark.timeout(900)
def test_what_goes_wrong_is_made_small() -> None:
    mutant = "memo_not_stored"
    seed = next(iter(check_seeds(range(MUTANT_SEEDS), mutant, stops=True).wrong))
    case = case_of(seed)
    small = shrink(case, mutant=mutant, schedules=1)
    assert judge(small, mutant=mutant)[0] is not None
    assert len(small.text()) < len(case.text())
    assert small.workers * small.slots * small.services <= case.workers * case.slots * case.services
