"""What plays the part of a handler in a test: a function, a value, an error, a script, silence.

handlers={
    "charge": charge,                                        # the application's own function, sync or async
    "quote": {"price": 12},                                  # returns this
    "refund": PermanentError("card is gone"),                # raises this
    "ship": script(RetryableError("busy"), {"parcel": 1}),   # fails once, then returns
    "review": silent(),                                      # an external worker that never comes
    "render": takes("10m", {"page": 1}),                     # ten minutes later
}
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

from orchestrator.core.model import Instance, NodeKey, Step
from orchestrator.core.outcomes import Failed, Outcome
from orchestrator.egress import MAX_BODY_BYTES, Egress, OutboundRequest, OutboundResponse, without_credentials
from orchestrator.exchange import Work
from sequences.durations import parse_duration
from sequences.handlers import BUILTIN_HANDLERS
from workers.binding import binding_of
from workers.context import StepContext
from workers.failures import PermanentError, failed, outcome_of_exception
from workers.handlers.builtin import builtin_registry
from workers.registry import DEFAULT_REGISTRY, Handler, Registry


@dataclass(frozen=True, slots=True)
class Silent:
    """Nobody claims the step."""


@dataclass(frozen=True, slots=True)
class Hangs:
    """A worker claims the step and does not answer."""


@dataclass(frozen=True, slots=True)
class Dies:
    """A worker claims the step and dies of it."""


@dataclass(frozen=True, slots=True)
class Takes:
    """The part is played, and the answer comes later."""

    duration: timedelta
    part: Any


@dataclass(frozen=True, slots=True)
class Script:
    """One part after the other; the last one is repeated."""

    parts: tuple[Any, ...]


def silent() -> Silent:
    """Let nobody claim the step, as when no external worker comes. Its time-outs run."""
    return Silent()


def hangs() -> Hangs:
    """Let a worker claim the step and never answer; a `timeout` of the step ends it."""
    return Hangs()


def dies() -> Dies:
    """Let the worker die of the step: its claim is lost, and the step runs again."""
    return Dies()


def takes(duration: timedelta | str, part: Any = None) -> Takes:
    """Let a part answer after some time of the harness's clock; `"90s"`, `"PT2H"` and timedelta are durations."""
    return Takes(length_of(duration), {} if part is None else part)


def script(*parts: Any) -> Script:
    """Play one part for each execution of a block, in order; the last one is repeated.

    Executions of a block are counted over its attempts and iterations. One that a crash repeats is counted once.

    Raises:
        ValueError: There is no part.
    """
    if not parts:
        raise ValueError("a script has at least one part")
    return Script(parts)


def length_of(duration: timedelta | str) -> timedelta:
    """Read a duration; a bare number would be milliseconds here and seconds there, so there are none."""
    if not isinstance(duration, timedelta | str):
        raise TypeError(f"expected a timedelta or a text such as '10m', got {duration!r}")
    return duration if isinstance(duration, timedelta) else parse_duration(duration)


class NobodyPlays(AssertionError):
    """A step became ready whose handler the test has given no part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came of a part: the outcome, and how long it took. No outcome: it never answers, or the worker died."""

    outcome: Outcome | None = None
    after: timedelta = timedelta(0)
    has_died: bool = False


class _NoWayOut(Egress):
    """Refuses what would leave this process."""

    async def request(
        self, request: OutboundRequest, *, timeout: timedelta, max_body_bytes: int = MAX_BODY_BYTES
    ) -> OutboundResponse:
        raise PermanentError(
            f"{request.method} {without_credentials(request.url)} would leave this process; "
            "give the test a part for the handler: handlers={name: ...}"
        )


@lru_cache(maxsize=1)
def _built_in() -> Registry:
    return builtin_registry(egress=_NoWayOut())


_Turn = tuple[NodeKey, int, int]
"""An execution as scripts count it: node, round of the instance, attempt. One that is repeated keeps its place."""


class Cast:
    """Who plays which handler: the test's parts first, then the built-in handlers that stay in this process.

    Args:
        parts: By the name of the handler.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts = dict(parts)
        self._built_in = _built_in()
        self._handlers: dict[tuple[str, int], Handler] = {}
        self._executions: dict[tuple[UUID, str], list[_Turn]] = {}

    def names(self) -> tuple[str, ...]:
        """Name the handlers that somebody answers for, sorted."""
        given = {name for name, part in self._parts.items() if not isinstance(part, Silent)}
        return tuple(sorted(given | (set(self._built_in.names()) - self._parts.keys())))

    def knows(self, handler: str) -> bool:
        """Tell whether a handler has a part, if only that of silence."""
        return handler in self._parts or self._built_in.find(handler) is not None

    def is_silent(self, instance: Instance, step: Step) -> bool:
        """Tell whether nobody is going to claim a step."""
        return isinstance(self._part(step.handler, instance.id, (step.key, instance.round, step.attempt)), Silent)

    def play(self, work: Work, context: StepContext) -> Played:
        """Run the handler of a claim; whatever it does is an outcome."""
        claim = work.claim
        turn = (claim.key, work.instance.round, claim.attempt)
        part = self._part(claim.handler, claim.instance_id, turn)
        seen = self._executions.setdefault((claim.instance_id, claim.key.block_id), [])
        if turn not in seen:
            seen.append(turn)
        return self._played(part, claim.handler, context, work.params)

    def _part(self, handler: str, instance_id: UUID, turn: _Turn) -> Any:
        part = self._parts.get(handler)
        if not isinstance(part, Script):
            return part
        seen = self._executions.get((instance_id, turn[0].block_id), [])
        index = seen.index(turn) if turn in seen else len(seen)
        return part.parts[min(index, len(part.parts) - 1)]

    def _played(self, part: Any, name: str, context: StepContext, params: Any) -> Played:
        match part:
            case Takes(duration=duration, part=inner):
                played = self._played(inner, name, context, params)
                return Played(outcome=played.outcome, after=played.after + duration, has_died=played.has_died)
            case Hangs() | Silent():
                return Played()
            case Dies():
                return Played(has_died=True)
            case BaseException():
                return Played(outcome=outcome_of_exception(part))
            case type() if issubclass(part, BaseException):
                return Played(outcome=outcome_of_exception(_raised(part)))
            case None if name not in self._parts:
                return Played(outcome=self._run_built_in(name, context, params))
            case _ if callable(part):
                return Played(outcome=_run(self._handler(name, part), context, params))
            case _:
                return Played(outcome=_merging(name).outcome_of(part))

    def _run_built_in(self, name: str, context: StepContext, params: Any) -> Outcome:
        handler = self._built_in.find(name)
        return failed(f"no handler {name!r}", retryable=False) if handler is None else _run(handler, context, params)

    def _handler(self, name: str, function: Callable[..., Any]) -> Handler:
        key = (name, id(function))
        if key not in self._handlers:
            registered = DEFAULT_REGISTRY.find(name)
            is_own = registered is not None and registered.function is function
            self._handlers[key] = registered if registered is not None and is_own else _made(name, function)
        return self._handlers[key]


def _raised(kind: type[BaseException]) -> BaseException:
    try:
        return kind()
    except TypeError:
        return kind("raised by the test")


def _made(name: str, function: Callable[..., Any]) -> Handler:
    called = function if inspect.isroutine(function) or isinstance(function, partial) else type(function).__call__
    return Handler(
        name=name,
        function=function,
        is_async=inspect.iscoroutinefunction(called),
        merges=name not in BUILTIN_HANDLERS,
        is_instant=True,
        binding=binding_of(name, function),
    )


def _merging(name: str) -> Handler:
    return _made(name, lambda: None)


def _run(handler: Handler, context: StepContext, params: Any) -> Outcome:
    try:
        call = handler.bind(context, params)
        if isinstance(call, Failed):
            return call
        returned = call()
        return handler.outcome_of(_awaited(returned) if inspect.iscoroutine(returned) else returned)
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is a failure of its step
        return outcome_of_exception(error)


def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a coroutine; in a thread of its own if this one runs an event loop (an async test)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
