"""Rules of a whole definition (§2.3, api.md §5.4): what refuses it, with the texts clients look for.

A definition that breaks a rule is refused with the first problem; warnings (see `lint`) never refuse anything.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sequences.document import (
    MAX_BLOCK_DEPTH,
    ABSplit,
    Block,
    CancellationScope,
    ForEach,
    Loop,
    Parallel,
    Race,
    Router,
    Saga,
    SequenceDefinition,
    Step,
    SubSequence,
    TryCatch,
    WaitForInput,
    block_lists,
)
from sequences.lint import lint
from sequences.schemas import SchemaError, compile_schema
from sequences.step_fields import Compensation, RateLimit, Retry, SendWindow

MAX_BLOCKS: Final = 5000
MAX_MEMBERS: Final = 256
MAX_ITERATIONS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Problem:
    """A broken rule: the block that breaks it and the whole text for the client."""

    block_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong with a definition, first things first, and what may be wrong."""

    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()

    @property
    def first_error(self) -> str | None:
        """Return the text to refuse the definition with; None if it is valid."""
        return self.problems[0].text if self.problems else None


def validate(definition: SequenceDefinition) -> Report:
    """Check a definition against every rule. Warnings are looked for only when no rule is broken."""
    problems = tuple(_definition_problems(definition))
    return Report(problems) if problems else Report((), lint(definition))


def validate_blocks(blocks: tuple[Block, ...]) -> tuple[Problem, ...]:
    """Check a list of blocks on its own, for injection; an empty list is for the caller to judge."""
    return tuple(_tree_problems(blocks))


def _definition_problems(definition: SequenceDefinition) -> Iterator[Problem]:
    if not definition.blocks:
        yield Problem("(root)", "block `(root)`: sequence has no blocks")
    trees = (definition.blocks, definition.on_failure or (), definition.on_cancel or ())
    total = sum(1 for tree in trees for _ in _walk(tree))
    if total > MAX_BLOCKS:
        yield _about("(root)", f"sequence has {total} blocks, more than the maximum of {MAX_BLOCKS}")
        return
    yield from _schema_problems("(root)", "input_schema", definition.input_schema)
    for text in (definition.tenant_id, definition.namespace, definition.name):
        if "\0" in text:
            yield _about("(root)", "names must not contain NUL")
    for interceptor in _interceptors(definition):
        if not interceptor.strip():
            yield _about("(root)", "handler name must not be empty")
    for tree in trees:
        yield from _tree_problems(tree)


def _interceptors(definition: SequenceDefinition) -> Iterator[str]:
    hooks = definition.interceptors
    if hooks is not None:
        for name in type(hooks).model_fields:
            if (hook := getattr(hooks, name)) is not None:
                yield hook.handler


def _walk(blocks: tuple[Block, ...]) -> Iterator[tuple[Block, int]]:
    """Yield every block of a tree with its depth, parents first, in document order."""
    waiting = [(block, 1) for block in reversed(blocks)]
    while waiting:
        block, depth = waiting.pop()
        yield block, depth
        children = [(child, depth + 1) for part in block_lists(block) for child in part]
        waiting.extend(reversed(children))


def _tree_problems(blocks: tuple[Block, ...]) -> Iterator[Problem]:
    """Check one tree, which is an id space of its own; saga step ids belong to it."""
    seen: set[str] = set()
    for block, depth in _walk(blocks):
        ids = (block.id, *(step.id for step in block.steps)) if isinstance(block, Saga) else (block.id,)
        for block_id in ids:
            if block_id in seen:
                yield Problem(block_id, f"duplicate block id: {block_id}")
            seen.add(block_id)
            yield from (_about(block_id, reason) for reason in _id_reasons(block_id))
        if depth > MAX_BLOCK_DEPTH:
            yield _about(block.id, f"block nesting exceeds the maximum depth of {MAX_BLOCK_DEPTH}")
        yield from (_about(block.id, reason) for reason in _reasons(block))
        if isinstance(block, Step):
            yield from _schema_problems(block.id, "output_schema", block.output_schema)
            yield from _gate_problems(block.id, block.wait_for_input)


def _id_reasons(block_id: str) -> Iterator[str]:
    if not block_id:
        yield "block id must not be empty"
    if "\0" in block_id:
        yield "block id must not contain NUL"


def _about(block_id: str, reason: str) -> Problem:
    return Problem(block_id, f"block `{block_id}`: {reason}")


def _reasons(block: Block) -> Iterator[str]:
    match block:
        case Step():
            yield from _step_reasons(block)
        case Parallel() | Race():
            yield from _size_reasons(block.type, "branch", "branches", len(block.branches))
        case Loop():
            yield from _loop_reasons(block)
        case ForEach():
            yield from _for_each_reasons(block)
        case Router():
            yield from _router_reasons(block)
        case TryCatch():
            yield from _unless(block.try_block, "try_catch try_block must not be empty")
        case SubSequence():
            yield from _unless(block.sequence_name.strip(), "sub_sequence sequence_name must not be empty")
        case ABSplit():
            yield from _split_reasons(block)
        case CancellationScope():
            yield from _unless(block.blocks, "cancellation_scope must have at least one block")
        case Saga():
            yield from _unless(len(block.steps) <= MAX_MEMBERS, f"saga must not have more than {MAX_MEMBERS} steps")


def _unless(holds: object, reason: str) -> Iterator[str]:
    if not holds:
        yield reason


def _size_reasons(block_type: str, one: str, many: str, count: int) -> Iterator[str]:
    yield from _unless(count > 0, f"{block_type} must have at least one {one}")
    yield from _unless(count <= MAX_MEMBERS, f"{block_type} must not have more than {MAX_MEMBERS} {many}")


def _iteration_reasons(block: Loop | ForEach) -> Iterator[str]:
    yield from _unless(block.max_iterations > 0, f"{block.type} max_iterations must be > 0")
    yield from _unless(
        block.max_iterations <= MAX_ITERATIONS, f"{block.type} max_iterations must not exceed {MAX_ITERATIONS}"
    )
    yield from _unless(block.body, f"{block.type} body must not be empty")


def _loop_reasons(loop: Loop) -> Iterator[str]:
    yield from _iteration_reasons(loop)
    yield from _unless(loop.condition.strip(), "loop condition must not be empty")


def _for_each_reasons(block: ForEach) -> Iterator[str]:
    yield from _iteration_reasons(block)
    yield from _unless(block.item_var.strip(), "for_each item_var must not be empty")
    yield from _unless(block.concurrency >= 1, "for_each concurrency must be >= 1")


def _router_reasons(router: Router) -> Iterator[str]:
    yield from _unless(router.routes or router.default is not None, "router must have a route or a default")
    yield from _unless(len(router.routes) <= MAX_MEMBERS, f"router must not have more than {MAX_MEMBERS} routes")
    yield from _unless(all(route.condition.strip() for route in router.routes), "route condition must not be empty")


def _split_reasons(split: ABSplit) -> Iterator[str]:
    names = [variant.name for variant in split.variants]
    yield from _unless(len(names) >= 2, "a_b_split must have at least 2 variants")
    yield from _unless(len(names) <= MAX_MEMBERS, f"a_b_split must not have more than {MAX_MEMBERS} variants")
    yield from _unless(all(name.strip() for name in names), "a_b_split variant names must not be empty")
    yield from _unless(len(set(names)) == len(names), "a_b_split variant names must be unique")
    yield from _unless(sum(variant.weight for variant in split.variants) > 0, "a_b_split weights must sum to > 0")


def _step_reasons(step: Step) -> Iterator[str]:
    yield from _unless(step.handler.strip(), "handler name must not be empty")
    if step.on_deadline_breach is not None:
        yield from _unless(step.on_deadline_breach.handler.strip(), "on_deadline_breach.handler must not be empty")
    for field, reasons in _FIELD_RULES.items():
        value = getattr(step, field)
        if value is not None:
            yield from reasons(step, value)


def _retry_reasons(_: Step, retry: Retry) -> Iterator[str]:
    yield from _unless(retry.max_attempts > 0, "retry.max_attempts must be > 0")
    yield from _unless(retry.backoff_multiplier > 0, "retry.backoff_multiplier must be > 0")
    yield from _unless(retry.initial_backoff <= retry.max_backoff, "retry.initial_backoff must be <= retry.max_backoff")
    yield from _unless(retry.retry_if is None or retry.retry_if.strip(), "retry.retry_if must not be empty")
    codes = retry.non_retryable_codes or ()
    yield from _unless(all(code.strip() for code in codes), "retry.non_retryable_codes must not contain empty strings")


def _window_reasons(_: Step, window: SendWindow) -> Iterator[str]:
    for name in ("start_hour", "end_hour"):
        yield from _unless(0 <= getattr(window, name) <= 23, f"send_window.{name} must be between 0 and 23")
    yield from _unless(
        window.start_hour != window.end_hour, "send_window.start_hour must differ from send_window.end_hour"
    )
    yield from _unless(
        all(0 <= day <= 6 for day in window.days), "send_window.days must be between 0 (Monday) and 6 (Sunday)"
    )


def _limit_reasons(_: Step, limit: RateLimit) -> Iterator[str]:
    yield from _unless(limit.max > 0, "rate_limit.max must be > 0")
    yield from _unless(limit.window_seconds > 0, "rate_limit.window_seconds must be > 0")


def _compensation_reasons(step: Step, compensation: Compensation) -> Iterator[str]:
    others = compensation.depends_on
    yield from _unless(compensation.handler.strip(), "compensation.handler must not be empty")
    yield from _unless(len(others) <= MAX_MEMBERS, f"compensation.depends_on must not exceed {MAX_MEMBERS} entries")
    yield from _unless(step.id not in others, "compensation.depends_on must not contain the step itself")
    yield from _unless(len(set(others)) == len(others), "compensation.depends_on must not contain duplicates")


_FIELD_RULES: Final[dict[str, Callable[[Step, Any], Iterator[str]]]] = {
    "retry": _retry_reasons,
    "send_window": _window_reasons,
    "rate_limit": _limit_reasons,
    "compensation": _compensation_reasons,
}


def _gate_problems(block_id: str, gate: WaitForInput | None) -> Iterator[Problem]:
    """Rules of a human gate; their texts have a form of their own (api.md §5.4)."""
    if gate is None:
        return
    where = f"invalid human_review on block `{block_id}`: human_review:"
    if gate.choices is not None and not gate.choices:
        yield Problem(block_id, f"{where} `choices` must be non-empty when provided")
    seen: set[str] = set()
    for choice in gate.choices or ():
        if choice.value in seen:
            yield Problem(block_id, f"{where} duplicate choice value `{choice.value}`")
        seen.add(choice.value)
    if gate.store_as is not None and not gate.store_as.strip():
        yield Problem(block_id, f"{where} `store_as` must be non-empty")


def _schema_problems(block_id: str, member: str, schema: object) -> Iterator[Problem]:
    if schema is None:
        return
    try:
        compile_schema(schema)
    except SchemaError as error:
        yield _about(block_id, f"{member} is not a valid JSON Schema: {error}")
