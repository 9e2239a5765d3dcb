"""Pages of the guide: their commands, and the answers that they show.

A page is Markdown. A fence of `sh` holds commands; a fence of `json` or `text` that stands right behind it holds what
they print. In an answer

* `…` stands for anything: a whole value, a part of a text; `"…": "…"` for further members of an object, a last `"…"`
  for further items of a list;
* a text that is `$name` and nothing else gives its value that name, which later commands use.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide"
ANYTHING = "…"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$(\n+(?=```))?", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"\$([a-z_]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Commands and what they print.

    Attributes:
        line: Where the commands begin in their page.
        answer: None when the page shows none.
    """

    line: int
    commands: str
    answer: str | None = None
    is_json: bool = False

    @property
    def only_reads(self) -> bool:
        """Whether to ask again does no harm, so that an answer may be waited for."""
        return not re.search(
            r"curl [^\n]*( -X | -d )|^ +(-d|-X) |orchestrator \w+ (?!list|get|show)", self.commands, re.M
        )


def page(name: str, tenant: str) -> str:
    """Read a page with another tenant than `demo`: what one page has made is in the way of no other."""
    return re.sub(r"\bdemo\b", tenant, (GUIDE / name).read_text())


def examples(text: str) -> Iterator[Example]:
    """Find the examples of a page.

    >>> [(each.line, each.commands, each.answer) for each in examples("a\\n```sh\\nls\\n```\\n\\n```text\\nb\\n```\\n")]
    [(3, 'ls\\n', 'b\\n')]
    """
    fences = list(_FENCE.finditer(text))
    for fence, following in zip(fences, [*fences[1:], None], strict=True):
        if fence[1] != "sh":
            continue
        line = text.count("\n", 0, fence.start()) + 2
        if following is None or not fence[3] or following[1] == "sh":
            yield Example(line=line, commands=fence[2])
        else:
            yield Example(line=line, commands=fence[2], answer=following[2], is_json=following[1] == "json")


def difference(example: Example, printed: str, names: dict[str, str]) -> str | None:
    """Say in what the output differs from the answer shown; None if it is the same. Adds to `names`."""
    if example.answer is None:
        return f"a refusal: {printed}" if '"error"' in printed else None
    if not example.is_json:
        return None if _fits_text(example.answer.strip(), printed.strip()) else f"{printed!r}"
    try:
        answer = json.loads(printed)
    except ValueError:
        return f"no JSON: {printed!r}"
    found: dict[str, str] = {}
    where = _differs(json.loads(example.answer), answer, names, found, "")
    if where is None:
        names |= found
        return None
    return f"{where}\nin {json.dumps(answer, indent=1, ensure_ascii=False)}"


def _differs(shown: Any, given: Any, names: dict[str, str], found: dict[str, str], at: str) -> str | None:
    if shown == ANYTHING:
        return None
    if isinstance(shown, dict) and isinstance(given, dict):
        if shown.keys() - {ANYTHING} - given.keys() or (ANYTHING not in shown and given.keys() - shown.keys()):
            return f"members at {at or 'the top'}: {sorted(shown)} are shown, {sorted(given)} given"
        parts = ((f"{at}.{name}", shown[name], given[name]) for name in shown if name != ANYTHING)
    elif isinstance(shown, list) and isinstance(given, list):
        is_open = bool(shown) and shown[-1] == ANYTHING
        items = shown[:-1] if is_open else shown
        if len(given) < len(items) or (len(given) > len(items) and not is_open):
            return f"{len(given)} items at {at or 'the top'}"
        parts = ((f"{at}[{index}]", item, given[index]) for index, item in enumerate(items))
    else:
        return None if _is_same(shown, given, names, found) else f"{at}: {shown!r} is shown, {given!r} given"
    return next((said for where, one, other in parts if (said := _differs(one, other, names, found, where))), None)


def _is_same(shown: Any, given: Any, names: dict[str, str], found: dict[str, str]) -> bool:
    if not isinstance(shown, str) or not isinstance(given, str):
        return bool(shown == given) and isinstance(shown, bool) == isinstance(given, bool)
    if (name := _NAME.fullmatch(shown)) and name[1] not in names:
        return found.setdefault(name[1], given) == given
    return _fits_text(_NAME.sub(lambda name: names.get(name[1], found.get(name[1], name[0])), shown), given)


def _fits_text(shown: str, given: str) -> bool:
    pattern = re.sub(r"([\[\]?*])", r"[\1]", shown).replace(ANYTHING, "*")
    return fnmatchcase(given, pattern)
