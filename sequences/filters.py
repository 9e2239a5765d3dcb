"""Filters of templates (§6.4). A result over 4 MiB or a bad argument is a `TemplateError`."""

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from sequences.json_values import MAX_TEXT_BYTES, byte_length, is_number, json_text


class TemplateError(ValueError):
    """A template cannot be resolved; the author's fault, and a permanent failure of the step."""


Arguments = tuple[Any, ...]
"""Arguments of a filter as they were resolved: texts, numbers, or what a path led to."""


def text_of(value: Any) -> str:
    """Put a value into text: strings as they are, everything else as compact JSON.

    Raises:
        TemplateError: The value cannot be written as JSON.
    """
    if isinstance(value, str):
        return value
    text = json_text(value)
    if text is None:
        raise TemplateError("a value cannot be written as JSON text")
    return text


def apply_filter(name: str, value: Any, arguments: Arguments) -> Any:
    """Apply one filter.

    Raises:
        TemplateError: An argument is missing or unusable, or the result is over 4 MiB.
    """
    return FILTERS[name](value, arguments)


def limited(text: str) -> str:
    """Return a result that is not over 4 MiB; raises `TemplateError` for one that is."""
    if len(text) > MAX_TEXT_BYTES // 4 and byte_length(text) > MAX_TEXT_BYTES:
        raise TemplateError("filter result exceeds 4 MiB")
    return text


def _argument(name: str, arguments: Arguments, index: int = 0) -> Any:
    if index >= len(arguments):
        raise TemplateError(f"filter `{name}`: missing argument")
    return arguments[index]


def _count(name: str, arguments: Arguments, index: int = 0) -> int:
    value = _argument(name, arguments, index)
    text = value if isinstance(value, str) else json_text(value) or ""
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) is None:
        raise TemplateError(f"filter `{name}`: expected a non-negative integer")
    return int(text)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _lenient_text(value: Any) -> str:
    return "" if value is None else text_of(value)


def _abs(value: Any, _: Arguments) -> Any:
    return abs(value) if is_number(value) else 0


def _round(value: Any, arguments: Arguments) -> Any:
    """Round half away from zero, as f64 `round` does on the scaled number."""
    digits = _count("round", arguments) if arguments else 0
    if not is_number(value):
        return 0
    if isinstance(value, int) or digits > 300 or not math.isfinite(value):
        return value
    scaled = abs(value) * 10.0**digits
    if scaled >= 2**52:
        return value
    return math.copysign(math.floor(scaled + 0.5) / 10.0**digits, value)


def _url_encode(value: Any, _: Arguments) -> str:
    return limited(quote(_lenient_text(value), safe="", errors="replace"))


def _base64(value: Any, _: Arguments) -> str:
    return limited(base64.b64encode(_lenient_text(value).encode("utf-8", "replace")).decode("ascii"))


def _base64_decode(value: Any, _: Arguments) -> str:
    try:
        decoded = base64.b64decode(_lenient_text(value), validate=True)
    except (binascii.Error, ValueError) as error:
        raise TemplateError("filter `base64_decode`: not base64") from error
    return limited(decoded.decode("utf-8", "replace"))


def _replace(value: Any, arguments: Arguments) -> str:
    old = text_of(_argument("replace", arguments))
    new = text_of(_argument("replace", arguments, 1))
    if not old:
        raise TemplateError("filter `replace`: the text to replace must not be empty")
    text = text_of(value)
    if len(text) + text.count(old) * (len(new) - len(old)) > MAX_TEXT_BYTES:
        raise TemplateError("filter result exceeds 4 MiB")
    return limited(text.replace(old, new))


def _default(value: Any, arguments: Arguments) -> Any:
    fallback = _argument("default", arguments)
    return fallback if value is None or value == "" else value


def _truncate(value: Any, arguments: Arguments) -> str:
    length = _count("truncate", arguments)
    text = _lenient_text(value)
    if len(text) <= length:
        return limited(text)
    return limited(text[:length] + (text_of(arguments[1]) if len(arguments) > 1 else ""))


def _join(value: Any, arguments: Arguments) -> str:
    separator = text_of(_argument("join", arguments))
    if not isinstance(value, list):
        return ""
    parts: list[str] = []
    size = 0
    for element in value:
        parts.append(text_of(element))
        size += len(parts[-1]) + len(separator)
        if size - len(separator) > MAX_TEXT_BYTES:
            raise TemplateError("filter result exceeds 4 MiB")
    return limited(separator.join(parts))


def _split(value: Any, arguments: Arguments) -> list[str]:
    separator = text_of(_argument("split", arguments))
    text = limited(_string(value))
    if not isinstance(value, str):
        return []
    return text.split(separator) if separator else list(text)


def _hash(value: Any, arguments: Arguments) -> str:
    if _argument("hash", arguments) != "sha256":
        raise TemplateError("filter `hash`: only sha256 is known")
    return hashlib.sha256(_lenient_text(value).encode("utf-8", "replace")).hexdigest()


FILTERS: Final[Mapping[str, Callable[[Any, Arguments], Any]]] = MappingProxyType(
    {
        "upper": lambda value, _: limited(_string(value).upper()),
        "lower": lambda value, _: limited(_string(value).lower()),
        "trim": lambda value, _: limited(_string(value).strip()),
        "abs": _abs,
        "round": _round,
        "url_encode": _url_encode,
        "base64": _base64,
        "base64_decode": _base64_decode,
        "replace": _replace,
        "default": _default,
        "truncate": _truncate,
        "join": _join,
        "split": _split,
        "hash": _hash,
    }
)
