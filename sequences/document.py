"""Documents of the language: the eleven blocks, the definition around them, and its two directions.

`parse_definition` reads what a client posted and `to_document` writes what it reads back. Shape only: a document that
parses may still break a rule of `validation`. Source: sequence language contract §1, §3, §4; api.md §5.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from sequences.blocks import (
    ABSplit,
    Block,
    CancellationScope,
    ForEach,
    Interceptor,
    Interceptors,
    Loop,
    Parallel,
    Race,
    Route,
    Router,
    Saga,
    SagaStep,
    SequenceDefinition,
    Sla,
    Step,
    SubSequence,
    TryCatch,
    Variant,
    block_lists,
    walk,
)
from sequences.durations import to_milliseconds
from sequences.json_values import is_deeper
from sequences.step_fields import (
    Choice,
    Compensation,
    ContextAccess,
    Delay,
    HandlerCall,
    Model,
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
    "MAX_VALUE_DEPTH",
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
MAX_VALUE_DEPTH: Final = 200
"""Levels of one value of an author: parameters, a schema, the input of a child."""
MAX_JSON_DEPTH: Final = 2 + 4 * MAX_BLOCK_DEPTH + MAX_VALUE_DEPTH
"""Levels of a whole document: 64 blocks, of which a route or a variant takes four levels, and a value in the last."""


class DocumentError(ValueError):
    """The document does not have the shape of the language; the client's fault, HTTP 422."""


class NestingError(DocumentError):
    """Blocks are nested beyond the limit. A rule of §2.3, so HTTP 400, found before the shape can be read."""


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
    if not is_deeper(data, MAX_VALUE_DEPTH):
        return
    structure = {name for names in _LISTS.values() for name in names} | {*_WRAPPERS, *_TREES}
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(member for name, member in value.items() if name in structure)
            for name, member in value.items():
                if name not in structure and is_deeper(member, MAX_VALUE_DEPTH):
                    raise DocumentError(f"`{name}` is nested deeper than {MAX_VALUE_DEPTH} levels")


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
