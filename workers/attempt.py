"""One attempt at a step: its context, its handler, its time-out. Whatever a handler does ends in an outcome."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import cached_property
from types import FrameType
from typing import Any

import structlog
from celery.exceptions import WorkerShutdown, WorkerTerminate

from orchestrator.core.outcomes import Failed, FailureKind, Outcome
from orchestrator.core.sections import runtime_section
from orchestrator.credential_use import without
from orchestrator.engine import Engine
from orchestrator.exchange import Work
from orchestrator.log_lines import as_text
from sequences.handlers import is_builtin
from sequences.scope import visible_section
from workers.context import StepContext
from workers.failures import outcome_of_exception
from workers.flows import FlowsOfStep
from workers.registry import Handler

log = structlog.get_logger()

CANCEL_POLL_SECONDS = 0.5
LONGEST_SECONDS = timedelta(days=36500).total_seconds()
"""A limit is no longer than this: no process lives so long, and the alarm's clock ends after 292 years."""
AGAIN_SECONDS = 0.5
SHARED_SECONDS = 0.01
"""How long an alarm is put off that would cut into what the next step needs as well."""
SHARED = ("orchestrator.store.", "orchestrator.handlers_known", "queues.")

TimeLimit = Callable[[float | None], AbstractContextManager[None]]
"""Raises `TimedOut` inside a block that takes longer than so many seconds; None for no limit."""


class TimedOut(BaseException):
    """Raised inside a handler whose time is over. Not an Exception, so that handlers do not swallow it."""


def run(
    work: Work,
    handler: Handler | None,
    engine: Engine,
    limit: TimeLimit | None = None,
    may_begin: Callable[[], bool] = lambda: True,
) -> Outcome | None:
    """Run a sync handler and give its outcome; whatever the handler raises is one.

    Args:
        limit: Ends a handler whose time is over; None for `time_limit`.
        may_begin: Asked last of all before the handler is called.

    Returns:
        None if it may not be called.

    Raises:
        SystemExit: This process was told to end, and the handler is what it was doing.
    """
    if work.failure is not None:
        return work.failure
    if handler is None:
        message = f"handler {work.claim.handler!r} is not known to this worker"
        return Failed(message=message, retryable=True)
    remaining = seconds_left(work, engine)
    try:
        call = handler.bind(context_of(work, engine) if handler.takes_context else None, work.params)
        if isinstance(call, Failed):
            return call
        with (limit or time_limit)(remaining):
            return handler.outcome_of(call()) if may_begin() else None
    except TimedOut:
        return timed_out(work)
    except BaseException as error:
        # SystemExit and MemoryError too are failures of the step.
        if _is_told_to_end(error):
            raise
        return outcome_of_exception(error)


def _is_told_to_end(error: BaseException) -> bool:
    """Tell whether a signal ends this process: billiard and Celery raise that wherever Python happens to be.

    billiard takes the number of the signal less 256 for the status, Celery exceptions of its own.
    """
    if isinstance(error, (WorkerShutdown, WorkerTerminate)):
        return True
    return isinstance(error, SystemExit) and isinstance(error.code, int) and -256 < error.code <= signal.NSIG - 256


def timed_out(work: Work) -> Failed:
    """Describe an attempt that took longer than the step allows."""
    timeout = work.block.timeout or timedelta(0)
    milliseconds = round(timeout.total_seconds() * 1000)
    return Failed(message=f"step timed out after {milliseconds} ms", retryable=True, kind=FailureKind.TIMEOUT)


def seconds_left(work: Work, engine: Engine) -> float | None:
    """Say how long the attempt may still take, by the database's clock; None without a limit."""
    if work.claim.expires_at is None:
        return None
    return max(0.001, (work.claim.expires_at - engine.now()).total_seconds())


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimedOut inside the block when the time is over.

    Works in the main thread only, where Python delivers signals; elsewhere the limit is cooperative, and the supervisor
    or the reconciler ends the attempt.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, frame: FrameType | None) -> None:
        if _is_shared(frame):
            signal.setitimer(signal.ITIMER_REAL, SHARED_SECONDS, AGAIN_SECONDS)
            return
        raise TimedOut

    former = signal.signal(signal.SIGALRM, interrupt)
    # A second alarm follows if the handler swallows the first one.
    signal.setitimer(signal.ITIMER_REAL, min(seconds, LONGEST_SECONDS), AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _is_shared(frame: FrameType | None) -> bool:
    """Tell whether what is running is not the handler's alone: it would leave a lock, or a place in a pool, taken.

    What has called the handler does not count: in a worker without children that is the consumer of its queues.
    """
    while frame is not None and (name := frame.f_globals.get("__name__", "")) != __name__:
        if name.startswith(SHARED):
            return True
        frame = frame.f_back
    return False


def context_of(work: Work, engine: Engine) -> StepContext:
    """Build what the handler sees; outputs and state are read from the store when it asks for them."""
    claim = work.claim
    path = ".".join(map(str, claim.key.iteration))
    is_current = _Polled(lambda: engine.is_current(claim))
    return StepContext(
        instance_id=claim.instance_id,
        sequence=work.sequence_name,
        block_id=claim.key.block_id,
        handler=claim.handler,
        idempotency_key=f"{claim.instance_id}:{claim.key.block_id}" + (f":{path}" if path else ""),
        iteration=path,
        attempt=claim.attempt,
        queue=claim.queue,
        context=sections(work, engine),
        outputs=_Read(lambda: engine.outputs_seen(claim)),
        state=_Read(lambda: engine.state_values(claim.instance_id)),
        latest_checkpoint=lambda: engine.latest_checkpoint(claim.instance_id),
        scope=work.scope,
        log=_log_of(work),
        is_cancelled=lambda: not is_current(),
        remaining=None if claim.expires_at is None else claim.expires_at - engine.now(),
        dry_run=work.instance.dry_run,
        gate=work.block.wait_for_input,
        flows=FlowsOfStep(work, engine),
    )


def sections(work: Work, engine: Engine) -> dict[str, Any]:
    """Give the sections of the context that the step may see, with the items of enclosing for_eachs laid over data."""
    access = work.block.context_access
    data = work.scope.data
    if work.scope.bindings:
        data = {**(data if isinstance(data, Mapping) else {}), **work.scope.bindings}
    runtime = runtime_section(work.instance, attempt=work.claim.attempt)
    return {
        "data": data,
        "config": work.scope.config,
        "audit": work.scope.audit or [],
        "runtime": runtime if access is None else dict(visible_section(runtime, access.runtime)),
        **_session_of(work, engine),
    }


def _session_of(work: Work, engine: Engine) -> dict[str, Any]:
    """Give the section with the data of the session, if there is one; built-in handlers read them when they look."""
    if work.instance.session_id is None:
        return {}
    if work.scope.session is not None:
        return {"session": work.scope.session}

    def read() -> Mapping[str, Any]:
        data = engine.session_data(work.claim.instance_id)
        return data if isinstance(data, Mapping) else {}

    return {"session": _Read(read)}


def _log_of(work: Work) -> Callable[..., None]:
    is_own = is_builtin(work.claim.handler)  # what those log is what they return
    bound = log.bind(instance_id=str(work.claim.instance_id), step=work.claim.key.block_id)

    def write(message: Any, *, level: str = "info", **fields: Any) -> None:
        if work.secrets:
            message, fields = without(message, work.secrets), without(fields, work.secrets)
        if not is_own:
            work.log.write(message, level=level, fields=fields)
            message, fields = as_text(message), {_free(name): as_text(value) for name, value in fields.items()}
        bound.log({"debug": 10, "info": 20, "warn": 30}.get(level, 20), "step_log", message=message, **fields)

    return write


def _free(name: str) -> str:
    """Give a name that the line of a log does not use itself."""
    return f"{name}_" if name in {"event", "instance_id", "step"} else name


class _Read(Mapping[str, Any]):
    """A mapping that is read from the store when somebody looks into it."""

    def __init__(self, read: Callable[[], Mapping[str, Any]]) -> None:
        self._read = read

    @cached_property
    def _values(self) -> Mapping[str, Any]:
        return self._read()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _Polled:
    """An answer asked for at most every half second."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._asked_at = float("-inf")
        self._answer = True

    def __call__(self) -> bool:
        if time.monotonic() - self._asked_at >= CANCEL_POLL_SECONDS:
            self._answer = self._ask()
            self._asked_at = time.monotonic()
        return self._answer
