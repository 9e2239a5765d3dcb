"""The work of a step does not grow with what came before it: what a worker holds between two decisions stays small."""

import pytest

from tests.benchmarks import core

NAMES = [name for name, _ in core.works(scale=1000)]
BOUND = 1020
"""What is open, at most 1,000 outputs, and a portion of the items of a for_each."""


@pytest.mark.parametrize("name", NAMES)
def test_slice_holds_no_more_for_many_steps_than_for_few(name: str) -> None:
    """Up to 5,000 iterations and items."""
    run = dict(core.works(scale=20))[name]
    run.drive()
    assert run.held <= BOUND


@pytest.mark.parametrize("name", NAMES)
def test_every_work_is_driven_to_its_end(name: str) -> None:
    run = dict(core.works(scale=400))[name]
    assert core.measure(name, run).steps >= 2


def test_memory_does_not_grow_with_iterations() -> None:
    """One object kept for each of the steps from the 1,000th to the 1,800th would be 800 blocks."""
    young, old = core.Run(core.loop(2_000)), core.Run(core.loop(2_000))
    blocks = core.growth(young, old, steps=2_000).blocks
    assert blocks[1_800] - blocks[1_000] < 400
