"""Existing Celery tasks as handlers: `celery:shop.tasks.charge` runs `charge(**params)` in the worker that has it.

The task's code runs in place of a handler's, not through Celery's queue. What a task says to Celery means here:

* it returns a value: the step's output;
* `self.retry(…)`, `autoretry_for`: a retryable failure. The step's retry policy decides whether and when, not the
  task's `max_retries` and `countdown`;
* `Ignore`: the step completes with null. The task wants no result recorded, and a step must end;
* `Reject(requeue=True)`: a retryable failure; `Reject(requeue=False)`: a permanent one;
* `self.replace(…)`: a permanent failure, because the replacement has gone to Celery's queue and its result is lost to
  the step. Make it a step of its own.

Bound tasks see `self.request.id` (the step's idempotency key, stable over retries), `self.request.retries` (the
attempt) and `called_directly`. A task whose base class has its own `__call__` is called through that, with Celery's
empty request; so is a coroutine task.
"""

import inspect
from collections.abc import Callable
from typing import Any, Final

from celery import Celery
from celery.app.task import Task
from celery.app.trace import task_has_custom
from celery.exceptions import Ignore

from orchestrator.core.outcomes import Completed, Failed
from queues.broker import HINT_TASK
from workers.binding import Binding, Parameter
from workers.context import StepContext
from workers.failures import failed
from workers.handlers.params import wrong_input
from workers.registry import Handler

PREFIX: Final = "celery:"
INTERNAL: Final = ("celery.", HINT_TASK)
"""Tasks of Celery and of ours that are no handlers."""
_BINDING: Final = Binding(
    context="ctx",
    whole=Parameter(name="params", adapter=None, is_required=True),
    is_model=False,
    named=(),
    takes_unknown=False,
)
"""The context and the raw params: the arguments are checked against the task's own signature."""


class CeleryTasks:
    """The tasks of a Celery app, by `celery:<task name>`.

    Args:
        app: The app whose tasks this worker has imported.
        merge_output: Whether object outputs are merged into `context.data`, as those of other handlers are.
    """

    def __init__(self, app: Celery, *, merge_output: bool = True) -> None:
        self._app = app
        self._merge_output = merge_output
        self._handlers: dict[str, Handler] = {}

    def find(self, name: str) -> Handler | None:
        """Return the task as a handler, or None if the app has no such task."""
        if not name.startswith(PREFIX) or name.removeprefix(PREFIX).startswith(INTERNAL):
            return None
        if name not in self._handlers:
            task = self._app.tasks.get(name.removeprefix(PREFIX))
            if task is None:
                return None
            self._handlers[name] = self._handler(name, task)
        return self._handlers[name]

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted, without those of Celery and of ours."""
        return tuple(sorted(f"{PREFIX}{name}" for name in self._app.tasks if not name.startswith(INTERNAL)))

    def _handler(self, name: str, task: Task[Any, Any]) -> Handler:
        signature = inspect.signature(task.run)
        is_async = inspect.iscoroutinefunction(task.run)
        return Handler(
            name=name,
            function=_awaiting(task, signature) if is_async else _running(task, signature),
            is_async=is_async,
            merges=self._merge_output,
            is_instant=False,
            binding=_BINDING,
        )


def _running(task: Task[Any, Any], signature: inspect.Signature) -> Callable[[StepContext, Any], Any]:
    def run(ctx: StepContext, params: Any) -> Any:
        arguments = _arguments(task.name, signature, params)
        if isinstance(arguments, Failed):
            return arguments
        try:
            return _called(task, ctx, arguments)
        except Ignore as exc:
            return _ignored(exc)

    return run


def _awaiting(task: Task[Any, Any], signature: inspect.Signature) -> Callable[[StepContext, Any], Any]:
    """Run a coroutine task; without a request, whose stack is the thread's and not each coroutine's own."""

    async def run(ctx: StepContext, params: Any) -> Any:
        arguments = _arguments(task.name, signature, params)
        if isinstance(arguments, Failed):
            return arguments
        try:
            return await task.run(**arguments)
        except Ignore as exc:
            return _ignored(exc)

    return run


def _arguments(task: str, signature: inspect.Signature, params: Any) -> dict[str, Any] | Failed:
    """Return the params if the task's signature takes them."""
    arguments = {} if params is None else params
    if not isinstance(arguments, dict):
        return wrong_input("params of a Celery task must be an object")
    try:
        signature.bind(**arguments)
    except TypeError as exc:
        return wrong_input(f"params do not fit the task {task!r}: {exc}")
    return arguments


def _called(task: Task[Any, Any], ctx: StepContext, arguments: dict[str, Any]) -> Any:
    """Call the task as Celery's tracer does, with a request of ours around it."""
    if task_has_custom(task, "__call__"):
        return task(**arguments)
    task.push_request(id=ctx.idempotency_key, retries=ctx.attempt, args=(), kwargs=arguments, called_directly=True)
    try:
        return task.run(**arguments)
    finally:
        task.pop_request()


def _ignored(exc: Ignore) -> Completed | Failed:
    if str(exc) == "Replaced by new task":
        return failed("the task replaced itself, and a step cannot wait for the replacement", retryable=False)
    return Completed(output=None)
