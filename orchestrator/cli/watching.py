"""`--watch`: a command that shows something shows it again and again, until Ctrl-C."""

import functools
import inspect
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from orchestrator.cli.exits import sentence_of
from orchestrator.cli.printing import note
from orchestrator.errors import ServerUnavailable

SECONDS = Annotated[
    float | None, typer.Option("--watch", min=0.1, help="Show it again every so many seconds, until Ctrl-C.")
]
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def let_watch(group: typer.Typer, *names: str) -> None:
    """Give commands of a group the option.

    Raises:
        LookupError: There is no such command.
    """
    commands = {each.name or getattr(each.callback, "__name__", ""): each for each in group.registered_commands}
    for name in names:
        command = commands[name]
        if command.callback is not None:
            command.callback = watched(command.callback)


def watched(show: Callable[..., None]) -> Callable[..., None]:
    """Let a command take `--watch`. On a terminal each look takes the place of the one before; a server that is away
    is told of, and asked again.
    """

    @functools.wraps(show)
    def command(*arguments: Any, watch: float | None = None, **options: Any) -> None:
        if watch is None:
            show(*arguments, **options)
            return
        while True:
            if sys.stdout.isatty():
                typer.echo(_CLEAR, nl=False)
            try:
                show(*arguments, **options)
            except ServerUnavailable as error:
                note(f"orchestrator: {sentence_of(error)}")
            sys.stdout.flush()
            time.sleep(watch)

    signature = inspect.signature(show, eval_str=True)
    option = inspect.Parameter("watch", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SECONDS)
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]  # how functions carry another one
        parameters=[*signature.parameters.values(), option]
    )
    command.__annotations__ = {**show.__annotations__, "watch": SECONDS}
    return command
