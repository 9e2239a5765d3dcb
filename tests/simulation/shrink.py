"""Makes a failing case small: fewer processes, fewer faults, a smaller program, as long as it still goes wrong.

Whatever is left out changes who goes on when, so a smaller case is tried with several schedules. It counts as the same
failure if the same thing goes wrong: what is said of it is compared without its names and numbers.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.simulation.campaign import judge
from tests.simulation.cases import Case
from tests.simulation.programs import Block, Program, everything_in

SCHEDULES = 12


def kind_of(wrong: str) -> str:
    """Say what kind of failure it is."""
    return re.sub(r"[\[\"'].*", "", re.sub(r"\b[a-z]+\d+\S*|\d+", "#", wrong))[:60]


def shrink(
    case: Case, *, mutant: str = "", schedules: int = SCHEDULES, told: Callable[[Case], None] = lambda _case: None
) -> Case:
    """Give a small case that goes wrong in the same way.

    Args:
        schedules: With how many schedules each smaller case is tried.
    """
    wrong, _ = judge(case, mutant=mutant)
    if wrong is None:
        raise ValueError("nothing goes wrong")
    kind = kind_of(wrong)

    def still_fails(smaller: Case) -> Case | None:
        for number in range(schedules):
            tried = replace(smaller, schedule=case.schedule + number * 1_000_003)
            if _fails(tried, kind, mutant):
                return tried
        return None

    found = True
    while found:
        found = False
        for smaller in _smaller(case):
            if (failing := still_fails(smaller)) is not None:
                case, found = failing, True
                told(case)
                break
    return case


def _fails(case: Case, kind: str, mutant: str) -> bool:
    try:
        wrong, _ = judge(copy.deepcopy(case), mutant=mutant)
    except Exception:
        return False  # no program any more, or one that goes wrong by itself
    return wrong is not None and kind_of(wrong) == kind


def _smaller(case: Case) -> Iterator[Case]:
    """Leave one thing out, the largest first."""
    for kind in sorted(case.faults):
        yield replace(case, faults={name: rate for name, rate in case.faults.items() if name != kind})
    for name in ("workers", "slots", "services"):
        if getattr(case, name) > 1:
            yield replace(case, **{name: 1})
    if case.program.instances > 1:
        acts = tuple(act for act in case.acts if act.instance == 0)
        yield replace(case, program=replace(case.program, instances=1), acts=acts)
    for index in range(len(case.acts)):
        yield replace(case, acts=case.acts[:index] + case.acts[index + 1 :])
    for program in _smaller_programs(case.program):
        yield replace(case, program=program)
    for most in (1, 2, 3, 5):
        if most < case.most_faults:
            yield replace(case, most_faults=most)
    for name, plain in (("batch", 1), ("carry_on", 1)):
        if getattr(case, name) != plain:
            yield replace(case, **{name: plain})


def _smaller_programs(program: Program) -> Iterator[Program]:
    for blocks in _smaller_lists(program.blocks):
        if blocks:
            yield replace(program, blocks=blocks)
    for name, blocks in program.others.items():
        for smaller in _smaller_lists(blocks):
            if smaller:
                yield replace(program, others={**program.others, name: smaller})
    lists = [program.blocks, *program.others.values()]
    called = {block.get("sequence_name") for blocks in lists for block in everything_in(blocks)}
    if unused := program.others.keys() - called:
        yield replace(program, others={name: each for name, each in program.others.items() if name not in unused})
    items = program.data.get("items", [])
    if len(items) > 2:
        yield replace(program, data={**program.data, "items": items[:2]})


def _smaller_lists(blocks: list[Block]) -> Iterator[list[Block]]:
    for index, block in enumerate(blocks):
        before, after = blocks[:index], blocks[index + 1 :]
        yield [*before, *after]
        for inner in _inner(block):
            yield [*before, *inner, *after]
        for smaller in _smaller_blocks(block):
            yield [*before, smaller, *after]


def _inner(block: Block) -> list[list[Block]]:
    found = [block[name] for name in ("body", "try_block", "catch_block", "finally_block", "blocks") if block.get(name)]
    return found + list(block.get("branches", []))


def _smaller_blocks(block: Block) -> Iterator[Block]:
    for name in ("delay", "retry", "timeout", "poll_interval", "finally_block", "when"):
        if name in block:
            yield {key: value for key, value in block.items() if key != name}
    for name in ("body", "try_block", "blocks", "catch_block", "finally_block"):
        for smaller in _smaller_lists(block.get(name, [])):
            if smaller or name == "catch_block":
                yield {**block, name: smaller}
    if block["type"] == "saga" and len(block["steps"]) > 1:
        for index in range(len(block["steps"])):
            yield {**block, "steps": block["steps"][:index] + block["steps"][index + 1 :]}
    branches: list[Any] = block.get("branches", [])
    for index, branch in enumerate(branches):
        if len(branches) > 1:
            yield {**block, "branches": branches[:index] + branches[index + 1 :]}
        for smaller in _smaller_lists(branch):
            if smaller:
                yield {**block, "branches": [*branches[:index], smaller, *branches[index + 1 :]]}
