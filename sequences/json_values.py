"""JSON values as the language compares, orders, counts and writes them (§7).

Work on values is charged to a `Budget`, so that no text, however hostile, can make one evaluation run for long.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

MAX_TEXT_BYTES: Final = 4 * 1024 * 1024
MAX_ELEMENTS: Final = 100_000
MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1
"""Signed or unsigned 64 bit: what orjson reads and writes without loss."""
_MAX_DEPTH: Final = 200
_NUMERIC: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


class OutOfBudget(Exception):
    """One evaluation has done all the work it may do."""


class Budget:
    """Units of work left to one evaluation; a unit is a visited element or 64 characters."""

    __slots__ = ("left",)

    def __init__(self, units: int = 1_000_000) -> None:
        self.left = units

    def charge(self, units: int) -> None:
        """Take units off; raises `OutOfBudget` when none are left."""
        self.left -= units
        if self.left < 0:
            raise OutOfBudget


def truthy(value: Any) -> bool:
    """Tell whether a value counts as true: every object does, empty arrays and texts do not (§7).

    >>> [truthy(value) for value in ({}, [], "", 0, 0.5, None, "false")]
    [True, False, False, False, True, False, True]
    """
    if isinstance(value, Mapping):
        return True
    return bool(value)


def is_number(value: Any) -> bool:
    """Tell whether a value is a JSON number; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def to_number(value: Any) -> float | None:
    """Read a value as a float64: numbers, booleans and numeric text; None for anything else or out of range."""
    if isinstance(value, str):
        if len(value) > 1000 or _NUMERIC.fullmatch(value) is None:
            return None
    elif not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def order_key(value: Any, budget: Budget, memo: dict[int, Any] | None = None) -> tuple[int, Any]:
    """Return a key that sorts and compares any values: null < bool < number < string < array < object.

    Two values are equal in the language iff their keys are. `memo` keeps the keys of containers met before; give the
    same one for values that are compared with each other.
    """
    return _key(value, budget, {} if memo is None else memo, 0)


def _key(value: Any, budget: Budget, memo: dict[int, Any], depth: int) -> tuple[int, Any]:
    budget.charge(1)
    if value is None:
        return (0, 0)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, int | float):
        return (2, value)
    if isinstance(value, str):
        return (3, value)
    known = memo.get(id(value))
    if known is not None:
        return known  # type: ignore[no-any-return]  # only keys are stored
    if depth > _MAX_DEPTH:
        return (6, id(value))
    key: tuple[int, Any]
    if isinstance(value, Mapping):
        members = sorted((str(name), name) for name in value)
        key = (5, tuple((text, _key(value[name], budget, memo, depth + 1)) for text, name in members))
    elif isinstance(value, list | tuple):
        key = (4, tuple(_key(element, budget, memo, depth + 1) for element in value))
    else:
        key = (6, str(value))
    memo[id(value)] = key
    return key


def equal(left: Any, right: Any, budget: Budget) -> bool:
    """Compare as `==` does: numbers by value, otherwise the same type and equal."""
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    memo: dict[int, Any] = {}
    return order_key(left, budget, memo) == order_key(right, budget, memo)


def json_text(value: Any) -> str | None:
    """Write a value as compact JSON text; None if it cannot be written (nested too deep, no JSON value)."""
    try:
        return orjson.dumps(value, default=_plain).decode()
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


def json_bytes(value: Any, *, options: int = 0) -> bytes:
    """Write any JSON value, however deep: orjson stops at 254 levels, and 64 routers in each other have 258.

    Args:
        value: JSON; times and UUIDs are written as text, fragments of orjson as they are.
        options: Of orjson.

    Raises:
        TypeError: It is no JSON value.

    >>> deep = json_bytes([json.loads("[" * 300 + "]" * 300), orjson.Fragment('{"as": "it is"}')])
    >>> deep.endswith(b',{"as":"it is"}]')
    True
    """
    try:
        return orjson.dumps(value, option=options)
    except TypeError as error:
        if "ecursion" not in str(error):
            raise
    is_sorted = bool(options & orjson.OPT_SORT_KEYS)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_written, sort_keys=is_sorted)
    return text.encode()


_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_CONTAINERS: Final = (list, dict, Mapping)


def is_deeper(value: Any, levels: int) -> bool:
    """Tell whether arrays and objects are nested deeper than so many levels. Never recurses."""
    level = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(levels):
        level = [
            inside
            for outside in level
            for inside in (outside if isinstance(outside, list) else outside.values())
            if type(inside) not in _SCALARS and isinstance(inside, _CONTAINERS)
        ]
        if not level:
            return False
    return bool(level)


def measure(value: Any, budget: Budget) -> None:
    """Charge a budget with every element of a value, before it is written as text."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        budget.charge(1 + (len(current) >> 6 if isinstance(current, str) else 0))
        if isinstance(current, Mapping):
            budget.charge(len(current))
            waiting.extend(current[name] for name in current)
        elif isinstance(current, list | tuple):
            budget.charge(len(current))
            waiting.extend(current)


def byte_length(text: str) -> int:
    """Return the length of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _written(value: Any) -> Any:
    if isinstance(value, datetime | UUID | orjson.Fragment):
        return orjson.loads(orjson.dumps(value, option=orjson.OPT_UTC_Z))
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def texts_in(value: Any) -> Iterator[str]:
    """Give every text in a value, in the order of the document.

    >>> list(texts_in({"a": "x", "b": [1, "y"]}))
    ['x', 'y']
    """
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, str):
            yield current
        elif isinstance(current, dict):
            waiting.extend(reversed(current.values()))
        elif isinstance(current, list):
            waiting.extend(reversed(current))
