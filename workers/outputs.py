"""The last look at a handler's output before it is committed.

An output is stored once and read for ever, so what the store or a reader would choke on must fail the step here, typed,
and not in the commit: NaN and infinity, which orjson silently writes as null; `\\u0000`, which jsonb refuses; lone
surrogates; values that are no JSON; nesting that overflows somebody's stack; sheer size.

The walk comes first and orjson second, because a handful of lists that refer to each other describe more JSON than any
machine holds. The walk counts a lower bound of the JSON's size and stops when that is over the cap, so its work is
bounded by the cap and not by the value.
"""

import math
import re
from dataclasses import replace
from enum import Enum
from typing import Any, Final, assert_never

import orjson

from orchestrator.core.outcomes import (
    BlocksAdded,
    CheckpointKept,
    Completed,
    DataWritten,
    Effect,
    Failed,
    FailureKind,
    Outcome,
    SharedDeleted,
    SharedWritten,
    SignalPosted,
    StateDeleted,
    StateWritten,
    Suspended,
)
from sequences.json_values import MAX_INTEGER, MIN_INTEGER
from sequences.signals import Custom
from workers.failures import failed

MAX_OUTPUT_BYTES: Final = 8 * 1024 * 1024
"""8 MiB of JSON text: a larger result belongs into a file store, and its address into the output."""
MAX_DEPTH: Final = 64
"""Containers inside each other, as everywhere in the language."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_PATH_CHARACTERS = 200


def check_output(value: object, *, max_bytes: int = MAX_OUTPUT_BYTES) -> bytes | Failed:
    """Return the output as JSON text, or the permanent failure that names what is wrong and where.

    Accepts None, bool, int within 64 bit, finite float, str, and dict (with str keys), list and tuple of these.

    >>> check_output({"total": 1.5, "pair": (1, 2)})
    b'{"total":1.5,"pair":[1,2]}'
    >>> check_output({"total": float("nan")}).message
    'output.total: NaN is not JSON'
    """
    try:
        _Walk(max_bytes).visit(value, 0)
    except _Refused as refusal:
        return _failure(refusal.text())
    try:
        text = _dump(value)
    except orjson.JSONEncodeError as exc:  # another thread of the handler changed the value behind the walk
        return _failure(f"output: {exc}")
    return text if len(text) <= max_bytes else _failure(f"output: larger than {max_bytes} bytes")


def check_outcome(outcome: Outcome, *, max_bytes: int = MAX_OUTPUT_BYTES) -> Outcome:
    """Return the outcome if all it would store can be stored, otherwise the failure that says why not."""
    match outcome:
        case Failed():
            return failed(outcome.message, retryable=outcome.retryable, kind=outcome.kind, details=outcome.details)
        case Completed(effects=()):
            return _first_failure([outcome.output], max_bytes) or outcome
        case Completed():
            written = [value for effect in outcome.effects for value in _values(effect)]
            names = [list(_names(effect)) for effect in outcome.effects]
            return _first_failure([outcome.output, *written, names], max_bytes) or outcome
        case Suspended():
            return _first_failure([outcome.output], max_bytes) or outcome
        case _:
            assert_never(outcome)


def _names(effect: Effect) -> tuple[str, ...]:
    match effect:
        case DataWritten(path=path) | SharedWritten(path=path):
            return path
        case StateWritten(key=key) | StateDeleted(key=key) | SharedDeleted(key=key):
            return (key,)
        case SignalPosted(signal=signal):
            return (signal.name,) if isinstance(signal, Custom) and signal.name is not None else ()
        case CheckpointKept() | BlocksAdded():
            return ()


def _values(effect: Effect) -> tuple[Any, ...]:
    match effect:
        case StateDeleted() | SharedDeleted() | BlocksAdded():
            return ()
        case SignalPosted(payload=payload):
            return (payload,)
        case _:
            return (effect.value,)


def _first_failure(values: list[Any], max_bytes: int) -> Failed | None:
    checks = (check_output(value, max_bytes=max_bytes) for value in values)
    return next((check for check in checks if isinstance(check, Failed)), None)


def _failure(message: str) -> Failed:
    return replace(failed(message, retryable=False), kind=FailureKind.OUTPUT)


def _dump(value: object) -> bytes:
    try:
        return orjson.dumps(value, default=_plain)
    except orjson.JSONEncodeError:
        # Keys of a subclass of str, such as enums; the option makes every call slower.
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: object) -> Any:
    """Give orjson the plain form of what the walk let pass: subclasses of float and tuple."""
    return list(value) if isinstance(value, tuple) else float(value)  # type: ignore[arg-type]  # the walk let only these pass


class _Refused(Exception):
    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.keys: list[str] = []

    def text(self) -> str:
        path = "".join(reversed(self.keys))
        shown = path if len(path) <= _PATH_CHARACTERS else path[:_PATH_CHARACTERS] + "…"
        return f"output{shown}: {self.reason}"


class _Walk:
    """One pass over the value, depth first, that raises `_Refused` at the first thing that may not be stored."""

    __slots__ = ("_left", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes

    def visit(self, value: Any, depth: int) -> None:
        """Check one value and what it contains; `depth` is the number of containers around it."""
        kind = type(value)
        if kind is str:
            self._string(value)
        elif kind is dict:
            self._object(value, depth)
        elif kind is list or kind is tuple:
            self._array(value, depth)
        elif value is None or kind is bool:
            self._spend(4)
        elif kind is int:
            self._integer(value)
        elif kind is float:
            self._number(value)
        else:
            self._subclass(value, depth)

    def _subclass(self, value: object, depth: int) -> None:
        """Check what is not exactly a JSON type: subclasses of one pass, everything else is refused."""
        match value:
            case str() | int() if isinstance(value, Enum):
                self.visit(value.value, depth)
            case str():
                self._string(value)
            case int():
                self._integer(value)
            case float():
                self._number(value)
            case dict():
                self._object(value, depth)
            case list() | tuple():
                self._array(value, depth)
            case _:
                raise _Refused(f"{type(value).__name__} is not a JSON type")

    def _object(self, value: dict[Any, Any], depth: int) -> None:
        self._enter(depth)
        for key, item in dict.items(value):
            if not isinstance(key, str):
                raise _Refused(f"key of type {type(key).__name__}; JSON keys are strings")
            try:
                self._string(key)
                self.visit(item, depth + 1)
            except _Refused as refusal:
                refusal.keys.append(f".{key[:_PATH_CHARACTERS]}")
                raise

    def _array(self, value: list[Any] | tuple[Any, ...], depth: int) -> None:
        self._enter(depth)
        for index, item in enumerate(value):
            try:
                self.visit(item, depth + 1)
            except _Refused as refusal:
                refusal.keys.append(f"[{index}]")
                raise

    def _enter(self, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise _Refused(f"nested deeper than {MAX_DEPTH}")
        self._spend(2)

    def _string(self, value: str) -> None:
        self._spend(len(value) + 2)
        if "\x00" in value:
            raise _Refused("\\u0000 cannot be stored")
        if not value.isascii() and _SURROGATE.search(value):
            raise _Refused("a lone surrogate is not Unicode text")

    def _integer(self, value: int) -> None:
        self._spend(1)
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise _Refused("integer outside of 64 bit")

    def _number(self, value: float) -> None:
        self._spend(3)
        if not math.isfinite(value):
            raise _Refused(f"{'NaN' if math.isnan(value) else 'Infinity'} is not JSON")

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _Refused(f"larger than {self._max_bytes} bytes")
