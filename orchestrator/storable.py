"""What JSON from outside the engine can keep: bounded depth, 64-bit integers, text without NUL."""

import json
from typing import Any, Final

from orchestrator.errors import InvalidArgument
from sequences.json_values import MAX_INTEGER, MIN_INTEGER, is_deeper

MAX_DEPTH = 64
"""Containers inside each other, as in everything the engine stores."""

_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER: Final = b"0" * 19


def check_storable(value: Any, content: bytes, *, max_depth: int | None = MAX_DEPTH) -> None:
    """Refuse what no store keeps.

    Args:
        value: Decoded from `content`.
        max_depth: Containers inside each other; None leaves the check to whoever reads the value.

    Raises:
        InvalidArgument: It holds NUL or integers beyond 64 bit, or is nested too deeply.
    """
    if max_depth is not None:
        check_depth(value, max_depth)
    if _LONG_NUMBER in content.translate(_DIGITS_ALIKE):
        _check_integers(content)
    if b"\\u0000" in content and _has_nul(value):
        raise InvalidArgument("text must not contain \\u0000")


def check_depth(value: Any, max_depth: int = MAX_DEPTH) -> None:
    """Refuse a value of more containers inside each other; raises InvalidArgument."""
    if is_deeper(value, max_depth):
        raise InvalidArgument(f"the body is nested deeper than {max_depth} levels")


def _check_integers(content: bytes) -> None:
    """Refuse integers that orjson would silently read as floats. Run only when a number that long is in the text."""
    try:
        json.loads(content, parse_int=_integer)
    except RecursionError as error:
        raise InvalidArgument("the body is nested too deeply") from error


def _integer(digits: str) -> int:
    if len(digits) > 20 or not MIN_INTEGER <= (number := int(digits)) <= MAX_INTEGER:
        raise InvalidArgument("an integer is outside of 64 bit")
    return number


def _has_nul(value: Any) -> bool:
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, str):
            if "\0" in current:
                return True
        elif isinstance(current, dict):
            waiting.extend(current)
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)
    return False
