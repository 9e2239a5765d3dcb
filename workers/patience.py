"""Waiting for a store that does not answer: with jitter, and not for ever."""

from collections.abc import Callable
from random import Random

import structlog

from orchestrator.clock import MACHINE_TIME, MachineTime
from orchestrator.errors import StoreUnavailable

log = structlog.get_logger()


class Patience:
    """Waits between tries until a time has passed, then lets the error go on.

    Args:
        seconds: How long to go on trying.
        machine: Tells how long that was, and waits.
        randomness: Where the jitter comes from; None for a source of its own.
        may_pass: Tells of an error of a store that does answer whether it is one of the moment.
    """

    def __init__(
        self,
        seconds: float,
        machine: MachineTime = MACHINE_TIME,
        randomness: Random | None = None,
        may_pass: Callable[[Exception], bool] = lambda _error: False,
    ) -> None:
        self._machine = machine
        self._random = randomness or Random()  # noqa: S311 - jitter, not secrets
        self._may_pass = may_pass
        self._until = machine.monotonic() + seconds
        self._pause = 0.05

    def wait(self, error: Exception) -> None:
        """Wait before the next try; raises `error` when there is no time left, or it would come again."""
        passes = isinstance(error, StoreUnavailable) or self._may_pass(error)
        if not passes or self._machine.monotonic() >= self._until:
            raise error
        log.warning("store_unavailable", error=str(error), retry_in_seconds=round(self._pause, 2))
        self._machine.sleep(self._pause * self._random.uniform(0.5, 1.5))
        self._pause = min(self._pause * 2, 2.0)
