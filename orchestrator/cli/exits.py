"""Exit codes, and which error means which; the table is in the package's docstring."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from orchestrator.errors import (
    AlreadyExists,
    ConfigurationError,
    Conflict,
    Forbidden,
    NotAuthorized,
    NotFound,
    OrchestratorError,
    PayloadTooLarge,
    RequestError,
    ServerError,
    ServerUnavailable,
    StoreUnavailable,
    WaitTimedOut,
)


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
    (NotAuthorized, ExitCode.REFUSED),
    (ServerError, ExitCode.UNREACHABLE),
    (StoreUnavailable, ExitCode.UNREACHABLE),
    (WaitTimedOut, ExitCode.TIMED_OUT),
)
_WORDS: tuple[tuple[type[OrchestratorError], str], ...] = (
    (NotFound, "not found: "),
    (AlreadyExists, "already exists: "),
    (Conflict, "conflict: "),
    (Forbidden, "forbidden: "),
    (PayloadTooLarge, "too large: "),
)
_HINTS: tuple[tuple[type[OrchestratorError], str], ...] = (
    (ServerUnavailable, "is it running? `orchestrator dev` starts one here, --url or ORCHESTRATOR_URL names another"),
    (NotAuthorized, "--api-key or ORCHESTRATOR_API_KEY"),
    (WaitTimedOut, "wait again with `orchestrator instances wait`"),
)


def code_of(error: OrchestratorError) -> ExitCode:
    """Give the exit code of an error.

    >>> code_of(NotFound("instance 7")).name
    'NOT_FOUND'
    """
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.WORK_FAILED)


def sentence_of(error: OrchestratorError) -> str:
    """Say in one line what is wrong and what to do.

    >>> sentence_of(NotFound("instance 7"))
    'not found: instance 7'
    """
    word = next((word for kind, word in _WORDS if isinstance(error, kind)), "")
    hint = next((f" ({hint})" for kind, hint in _HINTS if isinstance(error, kind)), "")
    return f"{word}{' '.join(str(error).split())}{hint}"


@contextmanager
def errors_as_exits() -> Iterator[None]:
    """Print errors raised on purpose in one line on standard error, and end with their code."""
    try:
        yield
    except OrchestratorError as error:
        typer.echo(f"orchestrator: {sentence_of(error)}", err=True)
        raise SystemExit(int(code_of(error))) from error
