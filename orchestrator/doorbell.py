"""Rings workers without making anybody wait.

What cannot be sent at once goes through a thread of its own: a broker that is slow or gone delays no commit, no answer
of the API and no handler. A hint that cannot be sent is dropped; the dispatcher sends it again.
"""

import queue
import threading
from collections.abc import Sequence
from typing import Protocol

import structlog

from queues.broker import Hint

log = structlog.get_logger()

MAX_WAITING = 10_000
MAX_TOGETHER = 200


class Broker(Protocol):
    """Who carries hints: `queues.broker.Broker`."""

    def publish(self, hints: tuple[Hint, ...]) -> None:
        """Send hints, however long that takes."""

    def publish_at_once(self, hints: tuple[Hint, ...]) -> bool:
        """Send hints without waiting for anything; False if that cannot be done."""


class Doorbell:
    """Sends hints at once, or in the background, several at a time.

    Starts its thread with the first hint that needs it, so after any fork.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: queue.Queue[Hint | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.dropped = 0

    def __call__(self, hints: Sequence[Hint]) -> None:
        """Send hints soon; returns at once, and never raises: what they tell of is committed."""
        if not hints or (self._waiting.empty() and self._broker.publish_at_once(tuple(hints))):
            return
        try:
            self._ensure_thread()
        except RuntimeError as error:  # the system gives no more threads at the moment
            self._drop(hints, error)
            return
        for hint in hints:
            try:
                self._waiting.put_nowait(hint)
            except queue.Full:
                self.dropped += 1

    def close(self, timeout: float = 2.0) -> None:
        """Send what is waiting and end the thread; gives up after `timeout` seconds."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(timeout)

    def _ensure_thread(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._send, name="doorbell", daemon=True)
                    thread.start()
                    self._thread = thread

    def _drop(self, hints: Sequence[Hint], error: Exception) -> None:
        self.dropped += len(hints)
        log.warning("hints_dropped", count=len(hints), error=f"{type(error).__name__}: {error}")

    def _send(self) -> None:
        is_open = True
        while is_open:
            hints, is_open = self._next()
            if not hints:
                continue
            try:
                self._broker.publish(tuple(hints))
            except Exception as error:  # noqa: BLE001 - a hint may be lost, the thread may not
                self._drop(hints, error)

    def _next(self) -> tuple[list[Hint], bool]:
        """Wait for a hint, then take all that are there; the flag is false when the bell was closed."""
        first = self._waiting.get()
        if first is None:
            return [], False
        hints = [first]
        while len(hints) < MAX_TOGETHER:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return hints, False
            hints.append(following)
        return hints, True
