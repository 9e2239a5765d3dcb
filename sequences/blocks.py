"""The eleven blocks of the language and the definition around them, as pydantic models (§1, §3, §4; api.md §5.2).

Every model is frozen and has the wire's member names; each block has `.type`, its wire tag, and `.id`.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BeforeValidator, Discriminator, Field, StrictBool, StrictStr, Tag, model_validator

from sequences.durations import Duration
from sequences.step_fields import (
    Compensation,
    ContextAccess,
    Delay,
    HandlerCall,
    Int32,
    Integer,
    Model,
    Natural,
    RateLimit,
    Retry,
    SendWindow,
    WaitForInput,
    WaitForSignal,
)


def _open_gate(value: object) -> object:
    if value is True:
        return {}
    return None if value is False else value


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or _RFC_3339.fullmatch(value) is None:
        raise ValueError("expected an RFC 3339 time with a zone")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("expected an RFC 3339 time with a zone") from error


_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,18})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _tag_of(value: object) -> str | None:
    tag = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "a_b_split" if tag == "ab_split" else tag if isinstance(tag, str) else None


class Step(Model):
    """Leaf block: one handler call (§4)."""

    type: Literal["step"] = "step"
    id: StrictStr
    handler: StrictStr
    params: Any = None
    delay: Delay | None = None
    retry: Retry | None = None
    timeout: Duration | None = None
    rate_limit_key: StrictStr | None = None
    rate_limit: RateLimit | None = None
    send_window: SendWindow | None = None
    context_access: ContextAccess | None = None
    cancellable: StrictBool = True
    wait_for_input: WaitForInput | None = None
    wait_for_signal: Annotated[WaitForSignal | None, BeforeValidator(_open_gate)] = None
    queue_name: StrictStr | None = None
    deadline: Duration | None = None
    on_deadline_breach: HandlerCall | None = None
    fallback_handler: StrictStr | None = None
    cache_key: StrictStr | None = None
    output_schema: Any = None
    when: StrictStr | None = None
    resource_pool: StrictStr | None = None
    resource_affinity: StrictBool = False
    compensation: Compensation | None = None

    always_written = frozenset({"params", "delay", "retry"})
    omitted_defaults = frozenset({"resource_affinity"})


class Parallel(Model):
    """All branches at once; waits for every one of them (§3.2)."""

    type: Literal["parallel"] = "parallel"
    id: StrictStr
    branches: tuple[tuple["Block", ...], ...]
    failure_policy: Literal["wait_all", "fail_fast"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_the_policy(cls, data: Any) -> Any:
        """`on_failure` is the alias of `failure_policy`."""
        if not isinstance(data, dict) or data.get("failure_policy") is not None or data.get("on_failure") is None:
            return data
        alias = data["on_failure"]
        named = {"continue": "wait_all", "cancel_siblings": "fail_fast"}
        policy = named.get(alias, alias) if isinstance(alias, str) else alias
        return {**data, "failure_policy": policy}

    @property
    def fails_fast(self) -> bool:
        """Tell whether the first failed branch ends the others."""
        return self.failure_policy == "fail_fast"


class Race(Model):
    """All branches at once; the first decides (§3.3)."""

    type: Literal["race"] = "race"
    id: StrictStr
    branches: tuple[tuple["Block", ...], ...]
    semantics: Literal["first_to_resolve", "first_to_succeed"] = "first_to_resolve"


class Loop(Model):
    """A list repeated while a condition holds (§3.4). `poll_interval` is in seconds."""

    type: Literal["loop"] = "loop"
    id: StrictStr
    condition: StrictStr
    body: tuple["Block", ...]
    max_iterations: Integer = 1000
    break_on: StrictStr | None = None
    continue_on_error: StrictBool = False
    poll_interval: Natural | None = None
    retain_iterations: Natural | None = None


class ForEach(Model):
    """A list run once per item of a collection (§3.5)."""

    type: Literal["for_each"] = "for_each"
    id: StrictStr
    collection: StrictStr
    item_var: StrictStr = "item"
    body: tuple["Block", ...]
    max_iterations: Integer = 1000
    retain_iterations: Natural | None = None
    concurrency: Integer = 1

    omitted_defaults = frozenset({"concurrency"})


class Route(Model):
    """One way through a router."""

    condition: StrictStr
    blocks: tuple["Block", ...]


class Router(Model):
    """The first route whose condition holds, else the default (§3.6)."""

    type: Literal["router"] = "router"
    id: StrictStr
    routes: tuple[Route, ...]
    default: tuple["Block", ...] | None = None

    always_written = frozenset({"default"})


class TryCatch(Model):
    """A list, a list for its failure, and a list for every ending (§3.7)."""

    type: Literal["try_catch"] = "try_catch"
    id: StrictStr
    try_block: tuple["Block", ...]
    catch_block: tuple["Block", ...]
    finally_block: tuple["Block", ...] | None = None

    always_written = frozenset({"finally_block"})


class SubSequence(Model):
    """Another sequence, run as a child instance (§3.8)."""

    type: Literal["sub_sequence"] = "sub_sequence"
    id: StrictStr
    sequence_name: StrictStr
    version: Int32 | None = None
    input: Any = None

    always_written = frozenset({"input"})


class Variant(Model):
    """One arm of a split; weight 0 is never chosen."""

    name: StrictStr
    weight: Natural
    blocks: tuple["Block", ...]


class ABSplit(Model):
    """One of several variants, chosen by weight, the same one for ever (§3.9)."""

    type: Annotated[Literal["a_b_split"], BeforeValidator(lambda tag: "a_b_split" if tag == "ab_split" else tag)] = (
        "a_b_split"
    )
    id: StrictStr
    variants: tuple[Variant, ...]


class CancellationScope(Model):
    """A list that a cancellation from outside cannot interrupt (§3.10)."""

    type: Literal["cancellation_scope"] = "cancellation_scope"
    id: StrictStr
    blocks: tuple["Block", ...]


class SagaStep(Model):
    """An action and the block that undoes it."""

    id: StrictStr
    action: "Block"
    compensation: "Block | None" = None


class Saga(Model):
    """Actions in order; after a failure the finished ones are undone in reverse (§3.11)."""

    type: Literal["saga"] = "saga"
    id: StrictStr
    steps: tuple[SagaStep, ...]


Block = Annotated[
    Annotated[Step, Tag("step")]
    | Annotated[Parallel, Tag("parallel")]
    | Annotated[Race, Tag("race")]
    | Annotated[Loop, Tag("loop")]
    | Annotated[ForEach, Tag("for_each")]
    | Annotated[Router, Tag("router")]
    | Annotated[TryCatch, Tag("try_catch")]
    | Annotated[SubSequence, Tag("sub_sequence")]
    | Annotated[ABSplit, Tag("a_b_split")]
    | Annotated[CancellationScope, Tag("cancellation_scope")]
    | Annotated[Saga, Tag("saga")],
    Discriminator(_tag_of),
]
"""Any of the eleven blocks; each has `.type`, its wire tag, and `.id`."""


class Interceptor(Model):
    """A handler called at a point of the flow's life (§14); written back exactly as posted."""

    handler: StrictStr
    params: Any = None


class Interceptors(Model):
    """Handlers around steps, signals and endings; they never change an outcome."""

    before_step: Interceptor | None = None
    after_step: Interceptor | None = None
    on_signal: Interceptor | None = None
    on_complete: Interceptor | None = None
    on_failure: Interceptor | None = None


class Sla(Model):
    """Run times after which an alert is sent (§14)."""

    max_runtime: Duration | None = None
    max_step_runtime: Duration | None = None


class SequenceDefinition(Model):
    """A versioned definition: a list of blocks and what belongs to the whole of it (§1)."""

    id: UUID
    tenant_id: Annotated[StrictStr, Field(pattern=r"\S")]
    namespace: StrictStr
    name: StrictStr
    version: Int32
    deprecated: StrictBool = False
    status: Literal["draft", "staging", "production", "unpublished"] = "production"
    blocks: tuple[Block, ...]
    interceptors: Interceptors | None = None
    input_schema: Any = None
    sla: Sla | None = None
    on_failure: tuple[Block, ...] | None = None
    on_cancel: tuple[Block, ...] | None = None
    created_at: Annotated[datetime, BeforeValidator(_moment)]


for _model in (
    Parallel,
    Race,
    Loop,
    ForEach,
    Route,
    Router,
    TryCatch,
    Variant,
    ABSplit,
    CancellationScope,
    SagaStep,
    Saga,
):
    _model.model_rebuild()


def block_lists(block: Block) -> tuple[tuple[Block, ...], ...]:
    """Return the lists of blocks directly inside a block, in document order.

    A step of a saga gives two: its action, then its compensation or nothing.
    """
    match block:
        case Parallel() | Race():
            return block.branches
        case Loop() | ForEach():
            return (block.body,)
        case Router():
            return (*(route.blocks for route in block.routes), block.default or ())
        case TryCatch():
            return (block.try_block, block.catch_block, block.finally_block or ())
        case ABSplit():
            return tuple(variant.blocks for variant in block.variants)
        case CancellationScope():
            return (block.blocks,)
        case Saga():
            return tuple(
                blocks
                for step in block.steps
                for blocks in ((step.action,), () if step.compensation is None else (step.compensation,))
            )
        case _:
            return ()


def walk(blocks: tuple[Block, ...]) -> Iterator[Block]:
    """Yield every block of a tree in document order, parents first."""
    waiting = list(reversed(blocks))
    while waiting:
        block = waiting.pop()
        yield block
        waiting.extend(child for blocks in reversed(block_lists(block)) for child in reversed(blocks))
