"""Write the parts of the documentation that are made from the code; `--check` only says which are out of date.

    python docs/generate.py

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything around it is written by hand.
"""

import json
import re
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from orchestrator.core import states
from orchestrator.settings import Settings
from sequences.expressions import compile_expression
from sequences.help import EXAMPLE_DATA, FILTERS_HELP, FUNCTIONS_HELP, Help
from sequences.language_schema import language_schema
from sequences.scope import Scope
from sequences.templates import render

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


def filters_table() -> str:
    """List the filters of templates, each with an example that is run."""
    return _help_table("Filter", FILTERS_HELP, lambda text: render(text, _EXAMPLE_SCOPE))


def functions_table() -> str:
    """List the functions of expressions, each with an example that is run."""
    return _help_table("Function", FUNCTIONS_HELP, lambda text: compile_expression(text).evaluate(_EXAMPLE_SCOPE))


_EXAMPLE_SCOPE: Final = Scope(
    data=EXAMPLE_DATA,
    now=datetime(2026, 3, 2, 12, tzinfo=UTC),
    random=Random(0),  # noqa: S311 - an example
    new_uuid=lambda: UUID(int=0),
)


def _help_table(title: str, entries: Collection[Help], run: Callable[[str], Any]) -> str:
    rows = [f"| {title} | Gives | Example | |", "|---|---|---|---|"]
    for each in entries:
        result = orjson.dumps(run(each.example)).decode()
        rows.append(f"| `{each.form}` | {each.effect} | `{_cell(each.example)}` | `{_cell(result)}` |")
    return "\n".join(rows)


def example_data() -> str:
    """Show what the examples read."""
    return f"```json\n{json.dumps(EXAMPLE_DATA)}\n```"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def language_schema_file() -> str:
    """Write the JSON Schema of the language, both forms."""
    return json.dumps(language_schema(), indent=1, sort_keys=True) + "\n"


FILES: Final[Mapping[str, Callable[[], str]]] = {"language/sequence.schema.json": language_schema_file}
"""Files that are made as a whole."""

PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "instance-diagram": lambda: diagram(
        states.INSTANCE_MOVES, [states.InstanceState.SCHEDULED], states.TERMINAL_INSTANCE_STATES
    ),
    "node-diagram": lambda: diagram(states.NODE_MOVES, [states.NodeState.PENDING], states.TERMINAL_NODE_STATES),
    "step-diagram": lambda: diagram(states.STEP_MOVES, [states.StepState.DELAYED], frozenset(states.StepState)),
    "settings": settings_table,
    "filters": filters_table,
    "functions": functions_table,
    "example-data": example_data,
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
    for name, make in FILES.items():
        path = DOCS / name
        if not path.exists() or path.read_text() != make():
            stale.append(path)
            sys.stderr.write(f"{name} is out of date\n")
            if not is_check:
                path.write_text(make())
    return len(stale)


if __name__ == "__main__":
    is_check = "--check" in sys.argv
    sys.exit(1 if main(is_check=is_check) and is_check else 0)
