"""Handlers of the tests, imported by real workers. Each notes its executions outside of the engine."""

import asyncio
import ctypes
import os
import signal
import time
from typing import Any, NoReturn

from orchestrator.core.outcomes import Completed, Failed
from tests.support import effects
from workers import PermanentError, RetryableError, StepContext, handler


def _began(ctx: StepContext, seen: Any = None) -> str:
    return effects.began(ctx.idempotency_key, attempt=ctx.attempt, handler=ctx.handler, seen=seen)


@handler("effect", merge_output=False)
def effect(ctx: StepContext, seen: Any = None, ms: float = 2) -> dict[str, Any]:
    """Do something outside, once for each execution; `seen` is what earlier steps have returned."""
    nonce = _began(ctx, seen)
    time.sleep(ms / 1000)
    effects.ended(nonce)
    return {"nonce": nonce, "key": ctx.idempotency_key}


@handler("fails_first", merge_output=False)
def fails_first(ctx: StepContext, times: int = 1) -> dict[str, Any]:
    """Fail the first attempts, then succeed."""
    nonce = _began(ctx)
    if ctx.attempt < times:
        effects.ended(nonce, "failed")
        raise RetryableError("not yet")
    effects.ended(nonce)
    return {"nonce": nonce, "key": ctx.idempotency_key}


@handler("until_released", merge_output=False)
def until_released(ctx: StepContext, path: str, seconds: float = 60) -> dict[str, Any]:
    """Hold the worker until a file appears."""
    nonce = _began(ctx)
    until = time.monotonic() + seconds
    while not os.path.exists(path) and time.monotonic() < until:  # noqa: PTH110 - a question, not a path
        time.sleep(0.01)
    effects.ended(nonce)
    return {"nonce": nonce, "key": ctx.idempotency_key}


@handler("cooperative", merge_output=False)
def cooperative(ctx: StepContext) -> dict[str, Any]:
    """Go on until cancelled."""
    nonce = _began(ctx)
    while not ctx.is_cancelled():
        time.sleep(0.01)
    effects.ended(nonce, "noticed")
    return {"nonce": nonce}


@handler("waits", merge_output=False)
async def waits(ctx: StepContext, path: str) -> dict[str, Any]:
    """Await a file, holding neither a thread nor a connection."""
    nonce = _began(ctx)
    while not os.path.exists(path):  # noqa: PTH110 - a question, not a path
        await asyncio.sleep(0.2)
    effects.ended(nonce)
    return {"nonce": nonce, "pid": os.getpid()}


# -- what should not be done ---------------------------------------------------------------------------------------


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _circular() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


_OUTPUTS: dict[str, Any] = {
    "nan": lambda: {"x": float("nan")},
    "infinity": lambda: float("inf"),
    "nul": lambda: {"x": "a\x00b"},
    "nul in a key": lambda: {"a\x00b": 1},
    "lone surrogate": lambda: {"x": "\ud800"},
    "100 MB": lambda: "x" * 100_000_000,
    "a set": lambda: {1, 2},
    "bytes": lambda: b"x",
    "an object": object,
    "too deep": lambda: _nested(100),
    "itself": _circular,
    "2**64": lambda: 2**64,
    "a lying outcome": lambda: Completed(output=object()),
    "a failure with junk": lambda: Failed(message="\ud800\x00", retryable=False, details={"x": float("nan")}),
}


@handler("bad_output")
def bad_output(ctx: StepContext, kind: str) -> Any:
    """Return what cannot be stored."""
    _began(ctx)
    return _OUTPUTS[kind]()


@handler("bad_output_async")
async def bad_output_async(ctx: StepContext, kind: str) -> Any:
    """Return what cannot be stored, from a coroutine."""
    _began(ctx)
    return _OUTPUTS[kind]()


@handler("returns_nothing")
def returns_nothing(ctx: StepContext) -> None:
    """Return nothing, which is null."""
    _began(ctx)


class Unspeakable(Exception):
    """Raises again when it is looked at."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Strange(BaseException):
    """Neither an Exception nor known to anybody."""


def _recurse(depth: int = 0) -> int:
    return _recurse(depth + 1) + 1


_EXCEPTIONS: dict[str, Any] = {
    "ValueError": lambda: ValueError("x\x00\ud800" * 100_000),
    "BaseException": lambda: BaseException("base"),
    "Strange": lambda: Strange("strange"),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "MemoryError": MemoryError,
    "StopIteration": lambda: StopIteration(1),
    "CancelledError": asyncio.CancelledError,
    "Unspeakable": Unspeakable,
    "PermanentError": lambda: PermanentError("no", code="x", details={"nan": float("nan")}),
    "ExceptionGroup": lambda: BaseExceptionGroup("many", [ValueError("a"), SystemExit(1)]),
}


def _raise(kind: str) -> NoReturn:
    if kind == "RecursionError":
        _recurse()
    if kind == "huge allocation":
        bytearray(1 << 62)
    raise _EXCEPTIONS[kind]()


BAD_OUTPUTS = tuple(_OUTPUTS)
BAD_EXCEPTIONS = (*_EXCEPTIONS, "RecursionError", "huge allocation")


@handler("raises")
def raises(ctx: StepContext, kind: str) -> None:
    """Raise anything."""
    _began(ctx)
    _raise(kind)


@handler("raises_async")
async def raises_async(ctx: StepContext, kind: str) -> None:
    """Raise anything, from a coroutine."""
    _began(ctx)
    await asyncio.sleep(0)
    _raise(kind)


@handler("exits")
def exits(ctx: StepContext) -> None:
    """End the process, without a word."""
    _began(ctx)
    os._exit(7)


@handler("crashes")
def crashes(ctx: StepContext) -> None:
    """Touch memory that is not there."""
    _began(ctx)
    ctypes.string_at(0)


@handler("exits_once", merge_output=False)
def exits_once(ctx: StepContext, path: str) -> dict[str, Any]:
    """End the process on the first execution only."""
    nonce = _began(ctx)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        effects.ended(nonce)
        return {"nonce": nonce, "key": ctx.idempotency_key}
    os._exit(7)


@handler("hangs")
def hangs(ctx: StepContext) -> None:
    """Sleep far past any time-out, in a call that a signal can interrupt."""
    _began(ctx)
    time.sleep(600)


@handler("swallows")
def swallows(ctx: StepContext) -> None:
    """Swallow what should end it."""
    _began(ctx)
    until = time.monotonic() + 600
    while time.monotonic() < until:
        try:
            time.sleep(600)
        except BaseException:
            continue


@handler("hangs_in_c")
def hangs_in_c(ctx: StepContext) -> None:
    """Stay in C, where Python delivers no signal."""
    _began(ctx)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    ctypes.CDLL(None).sleep(600)


@handler("hangs_async")
async def hangs_async(ctx: StepContext) -> None:
    """Hold up the event loop itself."""
    _began(ctx)
    ctypes.CDLL(None).sleep(600)


@handler("waits_for_ever")
async def waits_for_ever(ctx: StepContext) -> None:
    """Await what never comes."""
    _began(ctx)
    await asyncio.Event().wait()
