"""What the simulated handlers do, and what stands beside them in a child of a worker: its time limit and bystander."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.core.outcomes import Failed, FailureKind
from tests.simulation.chaos import Chaos
from tests.simulation.scheduler import Process, Scheduler
from workers.attempt import TimedOut
from workers.batch import Batch, Settle
from workers.context import StepContext
from workers.handlers.builtin import builtin_registry
from workers.registry import HandlerSources, Registry

Begin = Callable[[StepContext], None]
"""Told that a handler begins."""

BUILT_IN = builtin_registry()
QUICK_SECONDS, LONGEST_SECONDS = 0.0005, 3.0


def handlers(scheduler: Scheduler, chaos: Chaos, begun: Begin, ended: Begin) -> HandlerSources:
    """Give the handlers of a world: `work` and `quick`, and the built-in ones."""
    own = Registry()

    def work(ctx: StepContext, params: Any) -> Any:
        begun(ctx)
        pause(scheduler, chaos.between(0, LONGEST_SECONDS) if chaos.random.random() < 0.3 else chaos.between(0, 0.1))
        ended(ctx)
        return said(ctx, params)

    def quick(ctx: StepContext, params: Any) -> Any:
        begun(ctx)
        pause(scheduler, QUICK_SECONDS)
        ended(ctx)
        return said(ctx, params)

    own.register("work", work)
    own.register("quick", quick, instant=True)
    return HandlerSources(BUILT_IN, own)


def said(ctx: StepContext, params: Any) -> Any:
    """Give what a step returns: it depends on nothing but the step."""
    given = params if isinstance(params, dict) else {}
    if ctx.attempt < given.get("fails", 0):
        return Failed(message=f"{ctx.block_id} fails", retryable=given["fails"] < 10, kind=FailureKind.HANDLER)
    return {"by": f"{ctx.block_id}/{ctx.iteration}", "saw": given.get("saw")}


def pause(scheduler: Scheduler, seconds: float) -> None:
    """Let a handler take its time, or as much of it as it has."""
    task = scheduler.current
    assert task is not None
    if task.deadline is not None and scheduler.now + seconds > task.deadline:
        scheduler.wait_until(task.deadline)
        raise TimedOut
    scheduler.sleep(seconds)


def time_limit(scheduler: Scheduler) -> Callable[[float | None], Any]:
    """Give the limit of handlers: what `workers.attempt.time_limit` does with signals."""

    @contextmanager
    def limit(seconds: float | None) -> Iterator[None]:
        task = scheduler.current
        assert task is not None
        task.deadline = None if seconds is None else scheduler.now + seconds
        try:
            yield
        finally:
            task.deadline = None

    return limit


class Bystander:
    """Watches batches as `workers.batch.Bystander` does, from a task of its own, and is as hasty as chance has it."""

    def __init__(self, process: Process, chaos: Chaos, settle: Settle) -> None:
        self._process = process
        self._chaos = chaos
        self._settle = settle

    @contextmanager
    def watching(self, batch: Batch) -> Iterator[None]:
        """Watch a batch for a block, and let what is being settled come to its end."""
        if len(batch) < 2 or not self._chaos.happens("batch_broken_up"):
            yield
            return
        state = {"settling": False, "over": False}

        def look() -> None:
            if state["over"]:
                return
            state["settling"] = True
            try:
                self._settle(*batch.withdraw())
            except Exception:
                pass
            finally:
                state["settling"] = False

        self._process.run("bystander", look, after=self._chaos.between(0, 0.004))
        try:
            yield
        finally:
            state["over"] = True
            while state["settling"]:
                self._process.scheduler.sleep(0.001)
