"""What all commands that talk to a server share: where it is, who we are, how answers are shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

    from pydantic import BaseModel

    from orchestrator.cli.printing import Column, Row
    from orchestrator.client import Client, StreamEvent

DEFAULT_URL = "http://127.0.0.1:8080"
SHARED_OPTIONS = frozenset({"--output", "-o", "--url", "--api-key", "--tenant"})
"""Options of the root; all take a value."""


class Output(StrEnum):
    """How answers are shown."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The shared options of one call of the command line."""

    url: str
    api_key: str | None
    tenant: str | None
    output: Output

    @contextmanager
    def client(self) -> Iterator["Client"]:
        """Give a client of the server."""
        from orchestrator.client import Client  # noqa: PLC0415 - slow

        with Client(self.url, self.api_key, self.tenant) as client:
            yield client

    def say(self, sentence: str, value: Any) -> None:
        """Say what was done: a sentence for people, a value in JSON for programs."""
        if self.output is Output.TABLE:
            typer.echo(sentence)
        else:
            _printing().print_json(value)

    def show_rows(self, rows: "Sequence[Row]", columns: "Sequence[Column[Row]]") -> None:
        """Show a list: an array in JSON, one line for each in a table."""
        _printing().show_rows(self.output, rows, columns)

    def show_one(self, value: "BaseModel", fields: "Iterable[tuple[str, Any]]") -> None:
        """Show one thing: an object in JSON, a line for each field in a table."""
        _printing().show_one(self.output, value, fields)

    def show_whole(self, value: "BaseModel") -> None:
        """Show one thing with all its fields, under their names."""
        _printing().show_whole(self.output, value)

    def show_event(self, event: "StreamEvent") -> None:
        """Show one event of a stream, at once: a line of JSON, or one for people."""
        _printing().show_event(self.output, event)


def _printing() -> "ModuleType":
    """Give what prints answers: slow to import, so only what shows one does."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    return printing


def session_of(context: typer.Context) -> Session:
    """Give the session that the root has made."""
    session = context.obj
    if not isinstance(session, Session):
        raise TypeError("the root of the command line has not run")
    return session


def hoisted(arguments: list[str]) -> list[str]:
    """Move the shared options in front of the command, so that they may be written anywhere.

    >>> hoisted(["instances", "list", "--output", "json", "--limit", "5"])
    ['--output', 'json', 'instances', 'list', '--limit', '5']
    >>> hoisted(["flower", "--", "--url", "x"])
    ['flower', '--', '--url', 'x']
    """
    shared: list[str] = []
    others: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            others += [argument, *waiting]
        elif argument in SHARED_OPTIONS:
            shared += [argument, *(value for value in [next(waiting, None)] if value is not None)]
        elif argument.startswith("--") and argument.partition("=")[0] in SHARED_OPTIONS:
            shared.append(argument)
        else:
            others.append(argument)
    return shared + others


def read_json(written: str | None, option: str) -> Any:
    """Read the JSON of an option: the text itself, `@file`, or `@-` for standard input; None stays None.

    Raises:
        typer.BadParameter: The file cannot be read, or the text is no JSON; says where.
    """
    if written is None:
        return None
    source = written[1:] if written.startswith("@") else "the text"
    return _decoded(_text_of(written, option), source, option)


def read_lines(path: str, option: str) -> list[Any]:
    """Read a file of JSON, one value in each line that is not empty; `-` is standard input.

    Raises:
        typer.BadParameter: The file cannot be read, or a line is no JSON; says which.
    """
    lines = enumerate(_text_of(f"@{path}", option).splitlines(), start=1)
    return [_decoded(line, f"line {number} of {path}", option) for number, line in lines if line.strip()]


def read_text(written: str, option: str) -> str:
    """Read the text of an option: the text itself, `@file`, or `@-` for standard input.

    Raises:
        typer.BadParameter: The file cannot be read, or is no text.
    """
    try:
        return _text_of(written, option).decode()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{written[1:]} is no UTF-8 text", param_hint=option) from error


def read_document(path: Path) -> dict[str, Any]:
    """Read a definition from a file; `-` is standard input.

    Raises:
        typer.BadParameter: The file cannot be read, or holds no JSON object; says where.
    """
    document = _decoded(_text_of(f"@{path}", "FILE"), str(path), "FILE")
    if not isinstance(document, dict):
        raise typer.BadParameter(f"{path} holds no JSON object", param_hint="FILE")
    return document


def _text_of(written: str, option: str) -> bytes:
    if not written.startswith("@"):
        return written.encode()
    if written == "@-":
        return typer.get_binary_stream("stdin").read()
    try:
        return Path(written[1:]).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{written[1:]} cannot be read: {error.strerror}", param_hint=option) from error


def _decoded(text: bytes, source: str, option: str) -> Any:
    import orjson  # noqa: PLC0415 - only for commands that read JSON

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"{source} is no JSON: {error}", param_hint=option) from error
