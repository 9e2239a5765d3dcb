"""Coroutine handlers: hundreds awaiting on one event loop, none holding a thread or a connection.

The loop runs in a thread of its own. What ends is collected, and a second thread reports what has come together in the
meantime, in one commit: a lone step never waits, and under load the bundles grow by themselves.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence

import structlog

from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Failed, Outcome
from orchestrator.exchange import Work
from workers.attempt import timed_out
from workers.context import StepContext
from workers.failures import outcome_of_exception
from workers.registry import Handler

log = structlog.get_logger()

MAX_TOGETHER = 64

Ended = tuple[Work, Outcome | None]
"""No outcome: it was not begun."""


class Coroutines:
    """The event loop of one process.

    Args:
        capacity: How many handlers may be awaiting at once.
        report: Commits outcomes; called from the reporting thread, with all that have ended since its last call.
        may_begin: Asked last of all before a handler is called.
    """

    def __init__(
        self,
        capacity: int,
        report: Callable[[Sequence[Ended]], None],
        may_begin: Callable[[Claim], bool] = lambda _claim: True,
    ) -> None:
        self._capacity = capacity
        self._report = report
        self._may_begin = may_begin
        self._running = 0
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._ended: queue.SimpleQueue[Ended | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def room(self) -> int:
        """Say how many more handlers may be started."""
        with self._lock:
            return max(0, self._capacity - self._running)

    def start(self, work: Work, handler: Handler, context: StepContext) -> None:
        """Run a coroutine handler; its outcome is reported when it has ended."""
        loop = self._ensure_loop()
        with self._lock:
            self._running += 1
        asyncio.run_coroutine_threadsafe(self._run(work, handler, context), loop)

    async def _run(self, work: Work, handler: Handler, context: StepContext) -> None:
        outcome = await self._outcome(work, handler, context)
        self._ended.put((work, outcome))

    async def _outcome(self, work: Work, handler: Handler, context: StepContext) -> Outcome | None:
        seconds = None if context.remaining is None else max(0.001, context.remaining.total_seconds())
        try:
            call = handler.bind(context, work.params)
            if isinstance(call, Failed):
                return call
            if not self._may_begin(work.claim):
                return None
            async with asyncio.timeout(seconds) as limit:
                return handler.outcome_of(await call())
        except TimeoutError as error:
            return timed_out(work) if limit.expired() else outcome_of_exception(error)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is a failure of its step
            return outcome_of_exception(error)

    def _ensure_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="coroutine-handlers", daemon=True).start()
            threading.Thread(target=self._report_for_ever, name="coroutine-reports", daemon=True).start()
            self._loop = loop
        return self._loop

    def _report_for_ever(self) -> None:
        while (first := self._ended.get()) is not None:
            together = [first]
            while len(together) < MAX_TOGETHER:
                try:
                    following = self._ended.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    break
                together.append(following)
            try:
                self._report(together)
            except Exception:
                # The claims stay with this process; when it ends, or its time-out passes, they are given to others.
                log.exception("report_failed", count=len(together))
            with self._idle:
                self._running -= len(together)
                self._idle.notify_all()

    def close(self, timeout: float) -> bool:
        """Wait until all handlers have ended and are reported; False if `timeout` seconds were not enough."""
        with self._idle:
            return self._idle.wait_for(lambda: self._running == 0, timeout)
