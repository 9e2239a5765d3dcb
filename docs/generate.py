"""Write the parts of the documentation that are made from the code; `--check` only says which are out of date.

    python docs/generate.py

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything around it is written by hand.
"""

import re
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from orchestrator.core import states
from orchestrator.settings import Settings

DOCS: Final = Path(__file__).resolve().parent
_S = TypeVar("_S", bound=StrEnum)
_PART: Final = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def diagram(moves: Mapping[_S, Collection[_S]], first: Collection[_S], last: Collection[_S]) -> str:
    """Draw a table of moves in mermaid.

    Args:
        moves: States and where each may go.
        first: States in which something can begin.
        last: States in which something can end.
    """
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {state}" for state in first]
    lines += [f"    {source} --> {target}" for source in moves for target in type(source) if target in moves[source]]
    lines += [f"    {state} --> [*]" for state in type(next(iter(moves))) if state in last]
    return "\n".join([*lines, "```"])


def settings_table() -> str:
    """List every setting with its names in the environment, its default and its meaning."""
    rows = ["| Setting | In the environment | Default | Meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variables = ", ".join(f"`{variable}`" for variable in variables_of(name, field))
        rows.append(f"| `{name}` | {variables} | {_default(field)} | {field.description} |")
    return "\n".join(rows)


def variables_of(name: str, field: FieldInfo) -> list[str]:
    """Give the environment variables that set a field, the one that wins first."""
    prefix = str(Settings.model_config["env_prefix"])
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return list(dict.fromkeys(str(choice).upper() for choice in alias.choices))
    return [prefix + name.upper()]


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    match value:
        case timedelta():
            return f"{value.total_seconds():g} s"
        case None | "" | ():
            return "none"
        case bool():
            return "true" if value else "false"
        case _:
            return f"`{value}`"


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "instance-diagram": lambda: diagram(
        states.INSTANCE_MOVES, [states.InstanceState.SCHEDULED], states.TERMINAL_INSTANCE_STATES
    ),
    "node-diagram": lambda: diagram(states.NODE_MOVES, [states.NodeState.PENDING], states.TERMINAL_NODE_STATES),
    "step-diagram": lambda: diagram(states.STEP_MOVES, [states.StepState.DELAYED], frozenset(states.StepState)),
    "settings": settings_table,
}


def current(text: str) -> str:
    """Give a document with all its generated parts made anew.

    Raises:
        KeyError: It has a part that nobody makes.
    """
    return _PART.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}\n{match[3]}", text)


def documents() -> list[Path]:
    """Give the documents that have generated parts."""
    return [path for path in sorted(DOCS.rglob("*.md")) if _PART.search(path.read_text())]


def main(*, is_check: bool) -> int:
    """Write, or check; returns how many documents were out of date."""
    stale = [path for path in documents() if current(path.read_text()) != path.read_text()]
    for path in stale:
        sys.stderr.write(f"{path.relative_to(DOCS)} is out of date\n")
        if not is_check:
            path.write_text(current(path.read_text()))
    return len(stale)


if __name__ == "__main__":
    is_check = "--check" in sys.argv
    sys.exit(1 if main(is_check=is_check) and is_check else 0)
