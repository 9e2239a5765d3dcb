"""Durations of the language: how they are written, and what they mean inside.

Source: sequence language contract §2.2. On the wire an integer is milliseconds and a number with a decimal point is
seconds; inside every duration is a `timedelta` of whole milliseconds.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

_MAX_MS: Final = timedelta.max // timedelta(milliseconds=1)
_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_NUMBER: Final = r"\d{1,15}(?:\.\d{1,9})?"
TEXT_PATTERN: Final = rf"({_NUMBER})\s*(ms|s|m|h|d|w)"
ISO_PATTERN: Final = (
    rf"P(?=.)(?:({_NUMBER})W)?(?:({_NUMBER})D)?(?:T(?=.)(?:({_NUMBER})H)?(?:({_NUMBER})M)?(?:({_NUMBER})S)?)?"
)
"""The two forms of text, in what Python and JSON Schema both read."""
_TEXT: Final = re.compile(TEXT_PATTERN, re.ASCII)
_ISO: Final = re.compile(ISO_PATTERN, re.ASCII)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


def parse_duration(value: object) -> timedelta:
    """Read a duration as it is written in a document.

    >>> parse_duration(300), parse_duration(1.5), parse_duration("2s") == parse_duration("PT2S")
    (datetime.timedelta(microseconds=300000), datetime.timedelta(seconds=1, microseconds=500000), True)

    Raises:
        ValueError: The value is negative, too long, or no duration at all.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a duration: milliseconds, decimal seconds or text such as '15m'")  # noqa: TRY004 - pydantic reports ValueError
    milliseconds = _text_ms(value) if isinstance(value, str) else _number_ms(value)
    if milliseconds < 0:
        raise ValueError("a duration must not be negative")
    if not milliseconds <= _MAX_MS:
        raise ValueError("the duration is too long")
    return timedelta(milliseconds=round(milliseconds))


def to_milliseconds(duration: timedelta) -> int:
    """Write a duration as the contract returns it: integer milliseconds."""
    return duration // timedelta(milliseconds=1)


def after(moment: datetime, duration: timedelta) -> datetime:
    """Add a duration to an aware UTC moment; a sum beyond the calendar is its last moment, never an error."""
    return moment + duration if duration <= _LATEST - moment else _LATEST


def _number_ms(value: float) -> float:
    return value if isinstance(value, int) else value * 1000


def _text_ms(text: str) -> float:
    if len(text) > 100:
        raise ValueError("expected a duration such as '15m' or 'PT15M'")
    if simple := _TEXT.fullmatch(text.strip()):
        return float(simple[1]) * _UNIT_MS[simple[2]]
    iso = _ISO.fullmatch(text.strip())
    if iso is None:
        raise ValueError("expected a duration such as '15m' or 'PT15M'")
    return sum(float(part or 0) * _UNIT_MS[unit] for part, unit in zip(iso.groups(), "wdhms", strict=True))


DURATION_SCHEMA: Final[dict[str, Any]] = {
    "description": "Integer milliseconds, decimal seconds, or text such as `15m` or `PT15M` (§2.2).",
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": f"^\\s*(?:{TEXT_PATTERN}|{ISO_PATTERN})\\s*$"},
    ],
}
Duration = Annotated[timedelta, BeforeValidator(parse_duration), WithJsonSchema(DURATION_SCHEMA)]
"""A member that holds a duration in any accepted form."""
