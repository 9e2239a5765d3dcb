"""Finding `{{ … }}` in text. The end of an expression is searched past quoted text (§6.1)."""

import re
from typing import Final

_QUOTED_OR_END: Final = re.compile(r"\}\}|'[^']*'|\"[^\"]*\"|['\"]")


def find_end(text: str, start: int) -> int:
    """Return where the `}}` of an expression begins that was opened before `start`; -1 if it never ends.

    >>> find_end("{{ replace('{{x}}', a) }}!", 2)
    23
    """
    for found in _QUOTED_OR_END.finditer(text, start):
        if found[0] == "}}":
            return found.start()
        if len(found[0]) == 1:
            return -1
    return -1


def single_expression(text: str) -> str | None:
    """Return what stands inside the braces when the whole text is one `{{ … }}`, else None."""
    stripped = text.strip()
    if not (stripped.startswith("{{") and stripped.endswith("}}")) or len(stripped) < 4:
        return None
    return stripped[2:-2] if find_end(stripped, 2) == len(stripped) - 2 else None
