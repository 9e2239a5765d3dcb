"""Lines that a handler logs, kept until they are stored with the outcome of its attempt."""

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from orchestrator.core.outcomes import LogLine

MAX_LINES: Final = 1000
"""Lines of one attempt that are kept, the last ones."""
MAX_LEVEL_CHARACTERS: Final = 32
MAX_MESSAGE_CHARACTERS: Final = 8192


class LogBuffer:
    """The last lines of one attempt. Several threads may write; what comes after the attempt has ended is lost."""

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque(maxlen=MAX_LINES)

    def write(self, message: Any, *, level: str = "info", fields: Mapping[str, Any] | None = None) -> None:
        """Keep a line; any value is taken, and cut to what is stored."""
        text = _text(message) + (f" {_text(dict(fields))}" if fields else "")
        line = LogLine(at=datetime.now(UTC), level=_clean(level, MAX_LEVEL_CHARACTERS), message=_clean(text))
        self._lines.append(line)

    def lines(self) -> tuple[LogLine, ...]:
        """Give the lines, in the order they were written."""
        return tuple(self._lines)


def as_text(value: Any) -> str:
    """Write any value as text that can be stored and printed."""
    return _clean(_text(value))


def _text(value: Any) -> str:
    """Write a value as text, whatever it is.

    >>> _text("slow"), _text({"n": 1}), _text({1: object}), _text(2**70)
    ('slow', '{"n":1}', "{1: <class 'object'>}", '1180591620717411303424')
    """
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return _described(value)


def _described(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - the code of a stranger; a line must not fail its step
        return f"<{type(value).__name__}>"


def _clean(text: str, most: int = MAX_MESSAGE_CHARACTERS) -> str:
    """Give what a text column can hold of a text: no NUL, no halves of characters.

    >>> _clean("a" + chr(0) + chr(0xD800))
    'a??'
    """
    return str(text)[:most].replace("\0", "?").encode("utf-8", "replace").decode()
