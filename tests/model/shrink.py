"""Makes a failing program small: leaves things out as long as it still fails in the same way."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.model.program import Program
from tests.model.reference.places import lists_of

OPTIONAL = (
    "when",
    "delay",
    "send_window",
    "wait_for_input",
    "wait_for_signal",
    "retry",
    "timeout",
    "cancellable",
    "params",
)
OPTIONAL += ("break_on", "poll_interval", "continue_on_error", "failure_policy", "semantics", "concurrency", "default")
OPTIONAL += ("deadline", "on_deadline_breach", "cache_key", "output_schema", "context_access", "input")
OPTIONAL += ("finally_block", "max_iterations", "retain_iterations")


def shrink(program: Program, fails: Callable[[Program], bool], *, tries: int = 3000) -> Program:
    """Give a small program that fails too."""
    for _ in range(tries):
        smaller = next((each for each in _smaller(program) if fails(copy.deepcopy(each))), None)
        if smaller is None:
            return program
        program = smaller
    return program


def _smaller(program: Program) -> Iterator[Program]:
    for index in range(len(program.signals)):
        yield replace(program, signals=program.signals[:index] + program.signals[index + 1 :])
    for index in range(len(program.afterwards)):
        yield replace(program, afterwards=program.afterwards[:index] + program.afterwards[index + 1 :])
    if program.retries:
        yield replace(program, retries=program.retries - 1)
    if program.choices:
        yield replace(program, choices=program.choices[: len(program.choices) // 2])
        yield replace(program, choices=program.choices[:-1])
    for name in program.outcomes:
        yield replace(program, outcomes={key: said for key, said in program.outcomes.items() if key != name})
    for name, blocks in program.children.items():
        for smaller in _smaller_blocks(blocks):
            if smaller:
                yield replace(program, children={**program.children, name: smaller})
    for blocks in _smaller_blocks(program.blocks):
        if blocks:
            yield replace(program, blocks=blocks)


def _smaller_blocks(blocks: list[Any]) -> Iterator[list[Any]]:
    """Leave one thing out: a block, what is around a list, a member of a block."""
    for index, block in enumerate(blocks):
        before, after = blocks[:index], blocks[index + 1 :]
        yield [*before, *after]
        for inner in lists_of(block):
            if inner:
                yield [*before, *inner, *after]
        for smaller in _smaller_members(block):
            yield [*before, smaller, *after]


def _smaller_members(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for member in OPTIONAL:
        if member in block and not (member == "params" and block["handler"] in {"assert", "set_state", "merge_state"}):
            yield {name: value for name, value in block.items() if name != member}
    for member in ("body", "try_block", "blocks"):
        if member in block:
            yield from ({**block, member: inner} for inner in _smaller_blocks(block[member]) if inner)
    for member in ("catch_block", "finally_block", "default"):
        if block.get(member):
            yield from ({**block, member: inner} for inner in _smaller_blocks(block[member]))
    if "branches" in block:
        for branches in _smaller_lists(block["branches"]):
            if branches:
                yield {**block, "branches": branches}
    for member, inside in (("routes", "blocks"), ("variants", "blocks")):
        for index, part in enumerate(block.get(member, [])):
            for inner in _smaller_blocks(part[inside]):
                parts = list(block[member])
                parts[index] = {**part, inside: inner}
                yield {**block, member: parts}
    for index, step in enumerate(block.get("steps", [])):
        others = block["steps"][:index], block["steps"][index + 1 :]
        yield {**block, "steps": [*others[0], *others[1]]}
        for name in ("action", "compensation"):
            for inner in _smaller_blocks([step[name]] if name in step else []):
                if len(inner) == 1:
                    yield {**block, "steps": [*others[0], {**step, name: inner[0]}, *others[1]]}


def _smaller_lists(lists: list[list[Any]]) -> Iterator[list[list[Any]]]:
    for index, inner in enumerate(lists):
        yield [*lists[:index], *lists[index + 1 :]]
        for smaller in _smaller_blocks(inner):
            yield [*lists[:index], smaller, *lists[index + 1 :]]
