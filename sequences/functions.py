"""Functions of expressions (§7). A function never fails: an argument it cannot use gives null.

Each takes the call, which holds the evaluated arguments and the scope, and charges the budget for what it visits.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sequences.json_values import (
    MAX_ELEMENTS,
    MAX_TEXT_BYTES,
    Budget,
    byte_length,
    is_number,
    json_text,
    measure,
    order_key,
    to_number,
)
from sequences.scope import Scope


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function: its arguments, what it may read and how much it may do."""

    args: tuple[Any, ...]
    scope: Scope
    budget: Budget

    def arg(self, index: int, default: Any = None) -> Any:
        """Return an argument, or the default when it was not given."""
        return self.args[index] if index < len(self.args) else default

    def array(self) -> list[Any] | None:
        """Return the first argument if it is an array that is not too long, and pay for reading it."""
        value = self.arg(0)
        if not isinstance(value, list) or len(value) > MAX_ELEMENTS:
            return None
        self.budget.charge(len(value))
        return value


def length(value: Any, budget: Budget) -> int:
    """Count elements, keys or UTF-8 bytes; 0 for anything else."""
    if isinstance(value, str):
        budget.charge(len(value) >> 6)
        return byte_length(value)
    return len(value) if isinstance(value, list | Mapping) else 0


def _finite(number: float) -> float | None:
    return to_number(number)


def _abs(call: Call) -> Any:
    value = call.arg(0)
    if is_number(value):
        return abs(value)
    number = to_number(value)
    return None if number is None else abs(number)


def _clamp(call: Call) -> Any:
    value, low, high = call.arg(0), call.arg(1), call.arg(2)
    if not (is_number(value) and is_number(low) and is_number(high)):
        return value
    return min(max(value, low), high)


def _change_pct(call: Call) -> Any:
    old, new = to_number(call.arg(0)), to_number(call.arg(1))
    if old is None or new is None or old == 0:
        return None
    return _finite((new - old) / old * 100)


def _numbers(call: Call) -> list[float] | None:
    array = call.array()
    return None if array is None else [element for element in array if is_number(element)]


def _floats(call: Call) -> list[float] | None:
    numbers = _numbers(call)
    return None if numbers is None else [as_float for n in numbers if (as_float := to_number(n)) is not None]


def _sum(call: Call) -> Any:
    numbers = _floats(call)
    return None if numbers is None else _finite(sum(numbers, 0.0))


def _avg(call: Call) -> Any:
    numbers = _floats(call)
    return _finite(sum(numbers, 0.0) / len(numbers)) if numbers else None


def _min(call: Call) -> Any:
    numbers = _numbers(call)
    return min(numbers) if numbers else None


def _max(call: Call) -> Any:
    numbers = _numbers(call)
    return max(numbers) if numbers else None


def _first(call: Call) -> Any:
    array = call.arg(0)
    return array[0] if isinstance(array, list) and array and len(array) <= MAX_ELEMENTS else None


def _last(call: Call) -> Any:
    array = call.arg(0)
    return array[-1] if isinstance(array, list) and array and len(array) <= MAX_ELEMENTS else None


def _slice(call: Call) -> Any:
    array = call.array()
    if array is None:
        return None
    start, end = to_number(call.arg(1, 0)), to_number(call.arg(2, len(array)))
    if start is None or end is None:
        return None
    return array[_clamped(start, len(array)) : _clamped(end, len(array))]


def _clamped(number: float, highest: int) -> int:
    return int(min(max(number, 0), highest))


def _sort(call: Call) -> Any:
    array = call.array()
    if array is None:
        return None
    memo: dict[int, Any] = {}
    call.budget.charge(len(array))
    return sorted(array, key=lambda value: order_key(value, call.budget, memo), reverse=call.arg(1) == "desc")


def _unique(call: Call) -> Any:
    array = call.array()
    if array is None:
        return None
    memo: dict[int, Any] = {}
    same: set[int] = set()
    unique: dict[Any, Any] = {}
    for value in array:
        if id(value) not in same:
            same.add(id(value))
            unique.setdefault(order_key(value, call.budget, memo), value)
    return list(unique.values())


def _count(call: Call) -> Any:
    array = call.array()
    if array is None:
        return None if isinstance(call.arg(0), list) else 0
    memo: dict[int, Any] = {}
    wanted = order_key(call.arg(1), call.budget, memo)
    return sum(1 for value in array if order_key(value, call.budget, memo) == wanted)


def is_member(value: Any, array: Any, budget: Budget) -> bool:
    """Tell whether an array has an element equal to the value; false for anything that is no array."""
    if not isinstance(array, list) or len(array) > MAX_ELEMENTS:
        return False
    memo: dict[int, Any] = {}
    wanted = order_key(value, budget, memo)
    return any(order_key(element, budget, memo) == wanted for element in array)


def _contains(call: Call) -> Any:
    whole, part = call.arg(0), call.arg(1)
    if isinstance(whole, str):
        call.budget.charge(len(whole) >> 6)
        return isinstance(part, str) and part in whole
    if isinstance(whole, list) and len(whole) > MAX_ELEMENTS:
        return None
    return is_member(part, whole, call.budget)


def _starts_with(call: Call) -> Any:
    text, part = call.arg(0), call.arg(1)
    return isinstance(text, str) and isinstance(part, str) and text.startswith(part)


def _ends_with(call: Call) -> Any:
    text, part = call.arg(0), call.arg(1)
    return isinstance(text, str) and isinstance(part, str) and text.endswith(part)


def _sorted_keys(call: Call) -> list[str]:
    value = call.arg(0)
    if not isinstance(value, Mapping):
        return []
    call.budget.charge(2 * len(value))
    return sorted(value)


def _keys(call: Call) -> Any:
    return _sorted_keys(call)


def _values(call: Call) -> Any:
    return [call.arg(0)[key] for key in _sorted_keys(call)]


def _json(call: Call) -> Any:
    measure(call.arg(0), call.budget)
    text = json_text(call.arg(0))
    return None if text is None or byte_length(text) > MAX_TEXT_BYTES else text


def _now(call: Call) -> Any:
    now = call.scope.now
    return None if now is None else now.isoformat().replace("+00:00", "Z")


def _uuid(call: Call) -> Any:
    return None if call.scope.new_uuid is None else str(call.scope.new_uuid())


def _random(call: Call) -> Any:
    low, high = to_number(call.arg(0, 0)), to_number(call.arg(1, 100))
    if low is None or high is None or call.scope.random is None:
        return None
    return call.scope.random.randrange(int(low), int(high)) if int(high) > int(low) else int(low)


def _parse_moment(value: Any) -> datetime | None:
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


_DIRECTIVE: Final = re.compile(r"%(.?)", re.DOTALL)
_STRFTIME: Final = frozenset("aAbBdeHIjklmMpSuUVwWyZ%CDFGghnRtT")


def _format_date(call: Call) -> Any:
    moment, pattern = _parse_moment(call.arg(0)), call.arg(1, "%Y-%m-%d")
    if moment is None or not isinstance(pattern, str) or len(pattern) > 1000:
        return None
    try:
        return _DIRECTIVE.sub(lambda directive: _formatted(moment, directive[1]), pattern)
    except ValueError:
        return None


def _formatted(moment: datetime, letter: str) -> str:
    match letter:
        case "Y":
            return f"{moment.year:04d}"
        case "F":
            return moment.date().isoformat()
        case "f":
            return f"{moment.microsecond:06d}"
        case "z":
            return moment.strftime("%z") or "+0000"
        case "s":
            return str(int(moment.timestamp())) if moment.tzinfo else ""
        case _ if letter and letter in _STRFTIME:
            return moment.strftime(f"%{letter}")
        case _:
            raise ValueError("unknown directive")


def _day_of_week(call: Call) -> Any:
    moment = _parse_moment(call.arg(0))
    return None if moment is None else moment.weekday()


FUNCTIONS: Final[Mapping[str, Callable[[Call], Any]]] = MappingProxyType(
    {
        "len": lambda call: length(call.arg(0), call.budget),
        "abs": _abs,
        "clamp": _clamp,
        "change_pct": _change_pct,
        "sum": _sum,
        "avg": _avg,
        "min": _min,
        "max": _max,
        "first": _first,
        "last": _last,
        "slice": _slice,
        "sort": _sort,
        "unique": _unique,
        "count": _count,
        "contains": _contains,
        "starts_with": _starts_with,
        "ends_with": _ends_with,
        "keys": _keys,
        "values": _values,
        "json": _json,
        "now": _now,
        "uuid": _uuid,
        "random": _random,
        "format_date": _format_date,
        "day_of_week": _day_of_week,
    }
)
