"""Handlers by name.

    @handler("charge_card")
    def charge_card(ctx: StepContext, order_id: str, amount: Decimal) -> dict[str, Any]:
        return gateway.charge(order_id, amount, idempotency_key=ctx.idempotency_key)

A step `{"handler": "charge_card", "params": {"order_id": …, "amount": …}}` runs it. What the function returns is the
step's output; what it raises is the step's failure (`workers.failures`); the params are validated by its annotations
(`workers.binding`). Functions may be sync or async.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import pydantic

from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome
from orchestrator.errors import ConfigurationError
from sequences.handlers import BUILTIN_HANDLERS
from workers.binding import Binding, binding_of
from workers.context import StepContext, StepLog
from workers.failures import PermanentError, RetryableError, StepError, failed, outcome_of_exception

__all__ = [
    "DEFAULT_REGISTRY",
    "Handler",
    "HandlerSource",
    "HandlerSources",
    "PermanentError",
    "Registry",
    "RetryableError",
    "StepContext",
    "StepError",
    "StepLog",
    "handler",
    "load",
    "outcome_of_exception",
]

Call = Callable[[], Any]
"""A handler with its arguments; for an async handler it returns a coroutine."""

_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A function that can run steps.

    Args:
        name: What steps call it.
        function: The function itself.
        is_async: Whether calling it gives a coroutine.
        merges: Whether its object outputs are merged into `context.data`, as those of external workers are.
        is_instant: Whether it never blocks, so that it may run where a blocking call would hold up others.
        is_effectless: Whether it only looks at its params and the scope, and does nothing but give an outcome.
        binding: How params become its arguments.
    """

    name: str
    function: Callable[..., Any]
    is_async: bool
    merges: bool
    is_instant: bool
    is_effectless: bool = False
    binding: Binding

    @property
    def takes_context(self) -> bool:
        """Tell whether it is called with a context."""
        return bool(self.binding.context)

    def bind(self, ctx: StepContext | None, params: Any) -> Call | Failed:
        """Return the call that runs the handler, or the permanent failure that says which param is wrong.

        Args:
            ctx: None for a handler that takes none.
        """
        try:
            arguments = self.binding.arguments(ctx, params)
        except Exception as exc:  # noqa: BLE001  a validator of the handler's own types
            return outcome_of_exception(exc)
        return arguments if isinstance(arguments, Failed) else partial(self.function, **arguments)

    def outcome_of(self, returned: Any) -> Outcome:
        """Return the outcome that a returned value means; an outcome means itself. The output is not checked yet."""
        if isinstance(returned, Outcome):
            return returned
        try:
            return Completed(output=_as_json(returned), merges=self.merges)
        except Exception as exc:  # noqa: BLE001  a serializer of the handler's own types
            return failed(f"output: {type(exc).__name__}: {exc}", retryable=False, kind=FailureKind.OUTPUT)


class HandlerSource(Protocol):
    """Anything that knows handlers by name."""

    def find(self, name: str) -> Handler | None:
        """Return the handler, or None if this source does not have it."""

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted."""


class HandlerSources:
    """Several sources as one; an earlier one wins, so that built-in names cannot be taken over."""

    def __init__(self, *sources: HandlerSource) -> None:
        self._sources = sources

    def find(self, name: str) -> Handler | None:
        """Return the first source's handler of that name, or None."""
        found = (source.find(name) for source in self._sources)
        return next((known for known in found if known is not None), None)

    def names(self) -> tuple[str, ...]:
        """Return the names of all sources, sorted."""
        return tuple(sorted({name for source in self._sources for name in source.names()}))


class Registry:
    """Handlers registered one by one.

    Args:
        reserved: Names that cannot be registered because they mean something else.
    """

    def __init__(self, *, reserved: Collection[str] = ()) -> None:
        self._handlers: dict[str, Handler] = {}
        self._reserved = frozenset(reserved)

    def register(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        merge_output: bool = True,
        instant: bool = False,
        effectless: bool = False,
    ) -> Handler:
        """Add a handler. The same function again is fine: modules are imported under two names, or reloaded.

        Raises:
            ConfigurationError: The name is taken or not usable, or the function's signature is.
        """
        self._check_name(name, function)
        added = Handler(
            name=name,
            function=function,
            is_async=_is_async(name, function),
            merges=merge_output,
            is_instant=instant,
            is_effectless=effectless,
            binding=binding_of(name, function),
        )
        self._handlers[name] = added
        return added

    def find(self, name: str) -> Handler | None:
        """Return the handler, or None if the name is not registered."""
        return self._handlers.get(name)

    def names(self) -> tuple[str, ...]:
        """Return all registered names, sorted."""
        return tuple(sorted(self._handlers))

    def _check_name(self, name: str, function: Callable[..., Any]) -> None:
        if not name or name != name.strip():
            raise ConfigurationError(f"handler name {name!r} must be non-empty, without spaces around it")
        if "://" in name or name.startswith("celery:"):
            raise ConfigurationError(f"handler name {name!r} would mean an endpoint or a Celery task")
        if name in self._reserved:
            raise ConfigurationError(f"handler name {name!r} is reserved for a built-in handler")
        known = self._handlers.get(name)
        if known is not None and not _is_same(known.function, function):
            raise ConfigurationError(
                f"handler {name!r} is registered twice: by {_origin(known.function)} and by {_origin(function)}"
            )


DEFAULT_REGISTRY: Final = Registry(reserved=BUILTIN_HANDLERS)
"""What `@handler` fills."""


def handler(
    name: str, *, merge_output: bool = True, instant: bool = False, registry: Registry = DEFAULT_REGISTRY
) -> Callable[[_FunctionT], _FunctionT]:
    """Register a function as the handler `name`; the function itself stays as it is.

    Args:
        name: What steps call it.
        merge_output: Whether an object output is also merged, key by key, into `context.data`.
        instant: Whether it never blocks: no network, no disk, no long computation.
        registry: Where to register.
    """

    def register(function: _FunctionT) -> _FunctionT:
        registry.register(name, function, merge_output=merge_output, instant=instant)
        return function

    return register


def load(modules: Iterable[str]) -> None:
    """Import the modules whose `@handler` functions a worker serves.

    Args:
        modules: Names such as `shop.handlers`.

    Raises:
        ConfigurationError: A module cannot be imported; the message names it and the reason.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as exc:  # importing runs any code
            raise ConfigurationError(
                f"cannot import the handler module {module!r}: {type(exc).__name__}: {exc}"
            ) from exc


def _as_json(returned: Any) -> Any:
    if isinstance(returned, pydantic.BaseModel):
        return returned.model_dump(mode="json")
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        return dataclasses.asdict(returned)
    return returned


def _is_async(name: str, function: Callable[..., Any]) -> bool:
    called = function if inspect.isroutine(function) or isinstance(function, partial) else type(function).__call__
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigurationError(f"handler {name!r}: {_origin(function)} is a generator; return a value instead")
    return inspect.iscoroutinefunction(called)


def _is_same(known: Callable[..., Any], function: Callable[..., Any]) -> bool:
    """Return whether both come from the same source text; two closures over different values do not count."""
    if known is function:
        return True
    code, other = getattr(known, "__code__", None), getattr(function, "__code__", None)
    if code is None or other is None or code.co_freevars:
        return False
    return bool(code == other and code.co_filename == other.co_filename)


def _origin(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
