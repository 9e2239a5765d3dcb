"""Documents of the language: the eleven blocks, the definition around them, and its two directions.

`parse_definition` reads what a client posted and `to_document` writes what it reads back. Shape only: a document that
parses may still break a rule of `validation`. Source: sequence language contract §1, §3, §4; api.md §5.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    StrictBool,
    StrictStr,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from sequences.durations import Duration, to_milliseconds
from sequences.json_values import is_deeper
from sequences.step_fields import (
    Choice,
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
    VisibleFields,
    WaitForInput,
    WaitForSignal,
)

__all__ = [
    "MAX_BLOCK_DEPTH",
    "MAX_JSON_DEPTH",
    "ABSplit",
    "Block",
    "CancellationScope",
    "Choice",
    "Compensation",
    "ContextAccess",
    "Delay",
    "DocumentError",
    "ForEach",
    "HandlerCall",
    "Interceptor",
    "Interceptors",
    "Loop",
    "Model",
    "NestingError",
    "Parallel",
    "Race",
    "RateLimit",
    "Retry",
    "Route",
    "Router",
    "Saga",
    "SagaStep",
    "SendWindow",
    "SequenceDefinition",
    "Sla",
    "Step",
    "SubSequence",
    "TryCatch",
    "Variant",
    "VisibleFields",
    "WaitForInput",
    "WaitForSignal",
    "block_lists",
    "check_depth",
    "check_json_depth",
    "parse_blocks",
    "parse_definition",
    "to_document",
    "walk",
]

T = TypeVar("T")

MAX_BLOCK_DEPTH: Final = 64
MAX_JSON_DEPTH: Final = 240
"""Levels of a whole document: 64 blocks of three levels each and some for parameters; JSON writers stop at 254."""


class DocumentError(ValueError):
    """The document does not have the shape of the language; the client's fault, HTTP 422."""


class NestingError(DocumentError):
    """Blocks are nested beyond the limit. A rule of §2.3, so HTTP 400, found before the shape can be read."""


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
_BLOCKS: Final[TypeAdapter[tuple[Block, ...]]] = TypeAdapter(tuple[Block, ...])
_TREES: Final = ("blocks", "on_failure", "on_cancel")


def parse_definition(data: object) -> SequenceDefinition:
    """Read a definition from decoded JSON.

    Raises:
        DocumentError: A member is missing or has the wrong type; the message names its path and what was expected.
        NestingError: Blocks are nested more than 64 deep, and nothing around them is wrong.
    """
    if not isinstance(data, dict):
        raise DocumentError("expected an object: a sequence definition")
    try:
        check_depth([data.get(tree) for tree in _TREES])
    except NestingError:
        _read(SequenceDefinition.model_validate, {**data, **dict.fromkeys(_TREES), "blocks": []})
        raise
    check_json_depth(data)
    return _read(SequenceDefinition.model_validate, data)


def parse_blocks(data: object) -> tuple[Block, ...]:
    """Read a list of blocks from decoded JSON, for injection. Raises like `parse_definition`."""
    if not isinstance(data, list | tuple):
        raise DocumentError("expected an array of blocks")
    check_depth([data])
    check_json_depth(data)
    return _read(_BLOCKS.validate_python, data)


def to_document(part: Model) -> dict[str, Any]:
    """Write a definition, or any part of one, in its output form (api.md §5.3): defaults filled, unset left out.

    Values of authors (`params`, schemas, `input`) are passed on as they are, not copied.
    """
    document: dict[str, Any] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if value is None and not _is_written_null(part, name):
            continue
        if name in part.omitted_defaults and value == type(part).model_fields[name].default:
            continue
        document[name] = _written(value)
    return document


def block_lists(block: Block) -> tuple[tuple[Block, ...], ...]:
    """Return the lists of blocks directly inside a block, in document order; a saga's action is a list of one."""
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
                (step.action,) if step.compensation is None else (step.action, step.compensation)
                for step in block.steps
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


_LISTS: Final = {
    "parallel": ("branches",),
    "race": ("branches",),
    "loop": ("body", "blocks"),
    "for_each": ("body", "blocks"),
    "router": ("routes", "default"),
    "try_catch": ("try_block", "catch_block", "finally_block", "try", "catch", "finally"),
    "a_b_split": ("variants",),
    "ab_split": ("variants",),
    "cancellation_scope": ("blocks",),
    "saga": ("steps",),
}
_WRAPPERS: Final = ("blocks", "action", "compensation")


def check_depth(trees: list[Any]) -> None:
    """Reject raw trees whose blocks are nested more than 64 deep. Looks at nothing else, and never recurses."""
    waiting: list[tuple[Any, int]] = [(tree, 0) for tree in trees]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, list):
            waiting.extend((member, depth) for member in value if isinstance(member, dict | list))
        elif isinstance(value, dict):
            tag = value.get("type")
            members = _LISTS.get(tag, ()) if isinstance(tag, str) else _WRAPPERS
            inside = depth + 1 if isinstance(tag, str) else depth
            if inside > MAX_BLOCK_DEPTH:
                raise NestingError(f"block `{value.get('id')}`: block nesting exceeds the maximum depth of 64")
            waiting.extend((value[name], inside) for name in members if name in value)


def check_json_depth(data: object) -> None:
    """Reject a document that is nested too deeply for what reads it next. Never recurses."""
    if is_deeper(data, MAX_JSON_DEPTH):
        raise DocumentError(f"the document is nested deeper than {MAX_JSON_DEPTH} levels")


def _read(validate: Callable[[Any], T], data: object) -> T:
    try:
        return validate(data)
    except ValidationError as error:
        raise DocumentError(_explain(error.errors(include_url=False, include_input=False)[0])) from error
    except RecursionError as error:
        raise DocumentError("the document is nested too deeply") from error


_TAGS: Final = frozenset({*_LISTS, "step", "sub_sequence"})


def _explain(error: ErrorDetails) -> str:
    path, previous_is_index = "", True
    for part in error["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (part in _TAGS and previous_is_index) and part not in {"bool", "VisibleFields"}:
            path += f".{part}" if path else str(part)
        previous_is_index = isinstance(part, int) or part in {"action", "compensation"}
    return f"{path or 'document'}: {_expectation(error)}"


def _expectation(error: ErrorDetails) -> str:
    match error["type"]:
        case "missing":
            return f"missing field `{error['loc'][-1]}`"
        case "union_tag_invalid":
            return f"unknown block type `{error['ctx']['tag']}`"
        case "union_tag_not_found":
            return "missing field `type`, the tag of a block"
        case _:
            return error["msg"].removeprefix("Value error, ")


def _is_written_null(part: Model, name: str) -> bool:
    return name in part.always_written or (isinstance(part, Interceptor) and name in part.model_fields_set)


def _written(value: Any) -> Any:
    match value:
        case WaitForSignal() if value.is_plain:
            return True
        case Model():
            return to_document(value)
        case timedelta():
            return to_milliseconds(value)
        case datetime():
            precision = (
                "seconds"
                if not value.microsecond
                else "milliseconds"
                if value.microsecond % 1000 == 0
                else "microseconds"
            )
            return value.isoformat(timespec=precision).replace("+00:00", "Z")
        case UUID():
            return str(value)
        case tuple():
            return [_written(member) for member in value]
        case _:
            return value
