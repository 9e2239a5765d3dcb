"""Exit codes, and which error means which; the table is in the package's docstring."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from orchestrator.errors import ConfigurationError, NotFound, OrchestratorError, RequestError, StoreUnavailable


class ExitCode(IntEnum):
    """What a command says by ending."""

    OK = 0
    WORK_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    TIMED_OUT = 6


_CODES: tuple[tuple[type[OrchestratorError], ExitCode], ...] = (
    (ConfigurationError, ExitCode.USAGE),
    (NotFound, ExitCode.NOT_FOUND),
    (RequestError, ExitCode.REFUSED),
    (StoreUnavailable, ExitCode.UNREACHABLE),
)


def code_of(error: OrchestratorError) -> ExitCode:
    """Give the exit code of an error.

    >>> code_of(NotFound("instance 7")).name
    'NOT_FOUND'
    """
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.WORK_FAILED)


@contextmanager
def errors_as_exits() -> Iterator[None]:
    """Print errors raised on purpose in one line on standard error, and end with their code."""
    try:
        yield
    except OrchestratorError as error:
        typer.echo(f"orchestrator: {error}", err=True)
        raise SystemExit(int(code_of(error))) from error
