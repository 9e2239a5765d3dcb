"""Signals that ask a supervisor to end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from orchestrator.supervision.supervisor import Supervisor


class Interrupts:
    """Ctrl-C, SIGTERM and a closed terminal: at first they interrupt, later they only ask the supervisor to stop.

    A plain flag is set and looked at: an `Event` that is set in a signal handler can deadlock with its own `wait`.
    """

    def __init__(self) -> None:
        self._is_requested = False
        self._children: Supervisor | None = None

    def are_requested(self) -> bool:
        """Say whether one has come since `defer_to`."""
        return self._is_requested

    def defer_to(self, children: Supervisor) -> None:
        """From now on only ask: the children must be ended one step after the other."""
        self._children = children

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals for a block."""
        before = {
            number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._children is None:
            raise KeyboardInterrupt
        if self._is_requested:
            self._children.stop_hard()
        self._is_requested = True
