"""What goes wrong in a handler, as the typed failure of its attempt.

Handlers raise a `StepError` to say whether another attempt makes sense. Any other exception is a bug or the weather,
nobody can tell which from outside, so it is retryable.
"""

import math
import re
import traceback
from collections.abc import Mapping
from typing import Any

import httpx
import pydantic
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

from orchestrator.core.outcomes import Failed, FailureKind
from orchestrator.step_errors import PermanentError, RetryableError, StepError

__all__ = [
    "PermanentError",
    "RetryableError",
    "StepError",
    "describe_validation_error",
    "failed",
    "outcome_of_exception",
]

MAX_MESSAGE_CHARACTERS = 4096
"""4 Ki characters: a failure is read in lists and logs."""
MAX_DETAIL_CHARACTERS = 16_384
"""16 Ki characters in one string of the details; `try_catch` copies them into `context.data`, which is 256 KiB."""
MAX_DETAIL_NODES = 1000
MAX_DETAIL_DEPTH = 16
MAX_FRAMES = 12
"""Frames nearest to the error; the outer ones are the engine's."""

_UNSTORABLE = re.compile("[\u0000\ud800-\udfff]")


def outcome_of_exception(exc: BaseException) -> Failed:
    """Return the failure that an exception from a handler means. Never raises, whatever the exception does.

    What ends a process (`SystemExit`, `KeyboardInterrupt`) or exhausts it (`MemoryError`, `RecursionError`) is a
    failure of the attempt only: re-raised it would take the worker's other attempts along.
    """
    match exc:
        case StepError():
            return failed(exc.message, retryable=exc.retryable, details=exc.failure_details())
        case pydantic.ValidationError():
            message = describe_validation_error(exc)
            return failed(message, retryable=False, kind=FailureKind.INPUT, details=_details_of(exc))
        case MemoryError():
            return failed("the handler ran out of memory", retryable=True, details={"type": "MemoryError"})
        case RecursionError():
            return failed("the handler recursed too deeply", retryable=True, details=_details_of(exc))
        case SystemExit():
            return failed(f"the handler exited with status {_text(exc.code)}", retryable=True, details=_details_of(exc))
        case KeyboardInterrupt():
            return failed("the handler was interrupted from the keyboard", retryable=True, details=_details_of(exc))
        case Retry() | Ignore() | Reject():
            return _of_celery_request(exc)
        case TimeoutError() | SoftTimeLimitExceeded() | httpx.TimeoutException():
            return failed(_headline(exc), retryable=True, kind=FailureKind.TIMEOUT, details=_details_of(exc))
        case ConnectionError() | httpx.TransportError():
            return failed(_headline(exc), retryable=True, kind=FailureKind.NETWORK, details=_details_of(exc))
        case _:
            return failed(_headline(exc), retryable=True, details=_details_of(exc))


def failed(
    message: object,
    *,
    retryable: bool,
    kind: FailureKind = FailureKind.HANDLER,
    details: Mapping[str, Any] | None = None,
) -> Failed:
    """Return a failure that any store accepts: bounded, plain JSON, without `\\u0000` and lone surrogates.

    >>> failed("a\\x00b", retryable=True, details={"at": {1, 2}}).details
    {'at': '{1, 2}'}
    """
    plain = None if details is None else _Cleaner().clean(details)
    return Failed(message=_text(message, MAX_MESSAGE_CHARACTERS), retryable=retryable, kind=kind, details=plain)


def describe_validation_error(exc: pydantic.ValidationError, root: str = "") -> str:
    """Name each wrong parameter and what was expected of it, without the values.

    Args:
        exc: What pydantic found.
        root: The name of the value that was validated; empty if its members are the parameters.
    """
    return "; ".join(
        f"parameter {'.'.join([*filter(None, [root]), *map(str, problem['loc'])])!r}: {problem['msg']}"
        for problem in exc.errors(include_url=False, include_context=False, include_input=False)
    )


def _of_celery_request(exc: Retry | Ignore | Reject) -> Failed:
    """Translate what Celery tasks raise to talk to Celery; `Ignore` arrives here only from outside a task."""
    if isinstance(exc, Reject):
        reason, requeue = getattr(exc, "reason", None), getattr(exc, "requeue", False)  # absent from the type stubs
        return failed(f"the task rejected its message: {_text(reason)}", retryable=bool(requeue))
    if isinstance(exc, Retry):
        return failed(f"the task asked for a retry: {_text(exc.exc or exc.message)}", retryable=True)
    return failed(f"celery.exceptions.Ignore outside a Celery task: {_text(exc)}", retryable=False)


def _headline(exc: BaseException) -> str:
    text = _text(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _details_of(exc: BaseException) -> dict[str, Any]:
    return {"type": type(exc).__name__, "traceback": _frames(exc)}


def _frames(exc: BaseException) -> list[str]:
    """Return the frames nearest to the error, outermost first, each `file:line in function`; no values of variables."""
    frames = traceback.extract_tb(exc.__traceback__, limit=-MAX_FRAMES)
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]


def _text(value: object, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """Return `str(value)` cut and storable; a `__str__` that raises is no reason to lose the failure."""
    try:
        text = value if type(value) is str else str(value)
    except BaseException as broken:  # noqa: BLE001  user code, called while a failure is being recorded
        text = f"<{type(value).__name__} without text: {type(broken).__name__}>"
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return _UNSTORABLE.sub("\ufffd", cut)


class _Cleaner:
    """Turns anything into a small JSON value; what does not fit becomes text, what is too much is left out."""

    def __init__(self) -> None:
        self._nodes_left = MAX_DETAIL_NODES

    def clean(self, value: object, depth: int = 0) -> Any:
        """Return a JSON value; never raises for the containers it knows."""
        self._nodes_left -= 1
        if self._nodes_left < 0 or depth > MAX_DETAIL_DEPTH:
            return "…"
        match value:
            case None | bool():
                return value
            case int() if -(2**63) <= value < 2**63:
                return int(value)
            case float() if math.isfinite(value):
                return float(value)
            case Mapping():
                return {
                    _text(key, 256): self.clean(item, depth + 1) for key, item in value.items() if self._nodes_left > 0
                }
            case list() | tuple():
                return [self.clean(item, depth + 1) for item in value if self._nodes_left > 0]
            case _:
                return _text(value, MAX_DETAIL_CHARACTERS)
