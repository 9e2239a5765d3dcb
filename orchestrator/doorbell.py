"""Rings workers without making anybody wait.

Hints go through a thread of their own: a broker that is slow or gone delays no commit, no answer of the API and no
handler. A hint that cannot be sent is dropped; the dispatcher sends it again.
"""

import queue
import threading
from collections.abc import Callable, Sequence

import structlog

from queues.broker import Hint

log = structlog.get_logger()

MAX_WAITING = 10_000
MAX_TOGETHER = 200

Publish = Callable[[tuple[Hint, ...]], None]


class Doorbell:
    """Sends hints in the background, several at a time. Starts its thread with the first hint, so after any fork."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._waiting: queue.Queue[Hint | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.dropped = 0

    def __call__(self, hints: Sequence[Hint]) -> None:
        """Send hints soon; returns at once."""
        if not hints:
            return
        self._ensure_thread()
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
                    self._thread = threading.Thread(target=self._send, name="doorbell", daemon=True)
                    self._thread.start()

    def _send(self) -> None:
        is_open = True
        while is_open:
            hints, is_open = self._next()
            if not hints:
                continue
            try:
                self._publish(tuple(hints))
            except Exception as error:  # noqa: BLE001 - a hint may be lost, the thread may not
                self.dropped += len(hints)
                log.warning("hints_dropped", count=len(hints), error=f"{type(error).__name__}: {error}")

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
