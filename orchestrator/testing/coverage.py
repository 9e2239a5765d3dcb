"""Which blocks and branches of a sequence some runs have gone through, and which never."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.core.plan import Plan
from orchestrator.core.states import NodeState
from sequences.document import (
    ABSplit,
    Block,
    CancellationScope,
    ForEach,
    Loop,
    Parallel,
    Race,
    Router,
    Saga,
    TryCatch,
)

if TYPE_CHECKING:
    from orchestrator.testing.run import Run


@dataclass(slots=True)
class Coverage:
    """What the runs of one sequence have entered.

    Args:
        plan: The sequence.
        entered: Ids of blocks that at least one run has entered, and not merely skipped.
        runs: How many runs were noted.
    """

    plan: Plan
    entered: set[str] = field(default_factory=set)
    runs: int = 0

    def note(self, run: "Run") -> None:
        """Add what a run has entered."""
        self.entered |= {block_id for block_id, state in run.entered().items() if state is not NodeState.SKIPPED}
        self.entered |= {execution.block_id for execution in run.executions}
        self.runs += 1

    @property
    def missed_blocks(self) -> list[str]:
        """Ids of the blocks that no run has entered, in document order."""
        return [block_id for block_id in self.plan.places if block_id not in self.entered]

    @property
    def missed_branches(self) -> list[str]:
        """The lists of composites that no run has entered although it entered the composite, in words."""
        return [
            f"{place.block.type} `{block_id}`: {name} was never taken"
            for block_id, place in self.plan.places.items()
            if block_id in self.entered
            for name, members in zip(_names(place.block), self.plan.branches(block_id), strict=True)
            if members and not self.entered.intersection(members)
        ]

    @property
    def percent(self) -> float:
        """How much of the blocks was entered, from 0 to 100."""
        return 100 * (1 - len(self.missed_blocks) / max(1, len(self.plan.places)))

    def expect_all(self, *, but: tuple[str, ...] = ()) -> None:
        """Expect that every block was entered.

        Args:
            but: Ids of blocks that need not be.

        Raises:
            AssertionError: A block was never entered; the message lists all, and the branches.
        """
        missed = [block_id for block_id in self.missed_blocks if block_id not in but]
        if missed:
            raise AssertionError(f"never entered: {', '.join(missed)}\n\n{self}")

    def __str__(self) -> str:
        lines = [f"{self.plan.definition.name}: {self.percent:.0f} % of the blocks in {self.runs} runs"]
        lines += [f"  block `{block_id}` never ran" for block_id in self.missed_blocks]
        return "\n".join([*lines, *(f"  {branch}" for branch in self.missed_branches)])


def _names(block: Block) -> Iterator[str]:
    """Name the lists of a composite, in the order of `block_lists`."""
    match block:
        case Parallel() | Race():
            yield from (f"branch {number}" for number in range(1, len(block.branches) + 1))
        case Loop() | ForEach() | CancellationScope():
            yield "the body"
        case Router():
            yield from (f"route {number} ({route.condition})" for number, route in enumerate(block.routes, 1))
            yield "the default"
        case TryCatch():
            yield from ("try", "catch", "finally")
        case ABSplit():
            yield from (f"variant `{variant.name}`" for variant in block.variants)
        case Saga():
            for number in range(1, len(block.steps) + 1):
                yield from (f"action {number}", f"compensation {number}")
        case _:
            pass
