"""Answers on standard output: tables for people, JSON for programs. Notes go to standard error, in both cases."""

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import typer
from pydantic import BaseModel

from orchestrator.cli.session import Output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from orchestrator.client import StreamEvent, TreeNode

Row = TypeVar("Row")
Column = tuple[str, Callable[[Row], Any]]

STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "running": "cyan",
    "waiting": "blue",
    "lost": "red",
}
LONGEST_CELL = 80
PIPED_WIDTH = 400
"""Columns when standard output is no terminal: nothing is to be cut off on its way to another program."""


def show_rows(output: Output, rows: Sequence[Row], columns: Sequence[Column[Row]]) -> None:
    """Show a list: an array in JSON, one line for each in a table."""
    if output is Output.JSON:
        print_json([_plain(row) for row in rows])
        return
    from rich.table import Table  # noqa: PLC0415 - for tables only

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, _ in columns:
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(_cell(read(row)) for _, read in columns))
    _console().print(table)


def show_one(output: Output, value: BaseModel, fields: Iterable[tuple[str, Any]]) -> None:
    """Show one thing: an object in JSON, a line for each field in a table."""
    if output is Output.JSON:
        print_json(_plain(value))
        return
    from rich.table import Table  # noqa: PLC0415 - for tables only

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for title, field in fields:
        if field is not None and field != "":
            table.add_row(title, _cell(field, longest=None))
    _console().print(table)


def show_whole(output: Output, value: BaseModel) -> None:
    """Show one thing with all its fields, under their names."""
    fields = [(name, getattr(value, name)) for name in type(value).model_fields]
    show_one(
        output, value, [(name, compact(field) if isinstance(field, (dict, list)) else field) for name, field in fields]
    )


def show_event(output: Output, event: "StreamEvent") -> None:
    """Show one event of a stream, at once: a line of JSON, or one for people."""
    if output is Output.JSON:
        shown = {"event": event.name, "cursor": event.cursor, "data": event.data}
        typer.echo(orjson.dumps(shown).decode())
        return
    data = event.data
    what = compact(data["output"]) if event.name == "output" else data.get("state", data.get("error", ""))
    block = f"{data['block_id']}  " if event.name == "output" else ""
    typer.echo(f"{event.name}  {block}{what}")


def show_tree(nodes: Sequence["TreeNode"]) -> None:
    """Show the blocks of an instance below one another."""
    from rich.text import Text  # noqa: PLC0415 - for tables only

    depths: dict[Any, int] = {}
    for node in nodes:
        depth = depths[node.id] = depths.get(node.parent_id, -1) + 1
        branch = "" if node.branch_index is None else f"[{node.branch_index}] "
        line = Text("  " * depth + branch)
        line.append(node.block_id, style="bold").append(f"  {node.block_type}  ")
        line.append(node.state, style=STYLES.get(node.state, ""))
        if node.started_at and node.completed_at:
            line.append(f"  {(node.completed_at - node.started_at).total_seconds():.2f} s")
        _console().print(line)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def note(text: str) -> None:
    """Say something that is no part of the answer."""
    typer.echo(text, err=True)


def note_of_more(*, has_more: bool, offset: int, shown: int) -> None:
    """Say that a list goes on."""
    if has_more:
        note(f"there are more: --offset {offset + shown}")


def age(moment: datetime | None) -> str:
    """Say how long ago something was.

    >>> age(None)
    ''
    """
    if moment is None:
        return ""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def compact(value: Any) -> str:
    """Write a value as JSON on one line; text stays text."""
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _cell(value: Any, *, longest: int | None = LONGEST_CELL) -> "Text":
    from rich.text import Text  # noqa: PLC0415 - for tables only

    if isinstance(value, datetime):
        return Text(value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ"))
    text = "" if value is None else " ".join(str(value).split()) if longest else str(value)
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + "…"
    return Text(text, style=STYLES.get(text, ""))


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415 - for tables only

    return Console(
        width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False, soft_wrap=not sys.stdout.isatty()
    )
