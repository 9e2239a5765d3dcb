"""The shape all background loops share: a bounded tick, jitter, and errors that end a tick and never the loop."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog
from prometheus_client import Counter, Histogram

from orchestrator.errors import StoreUnavailable

log = structlog.get_logger()

TICKS = Counter("orchestrator_loop_ticks", "Ticks of each background loop", ["loop", "result"])
SECONDS = Histogram("orchestrator_loop_tick_seconds", "Duration of the ticks of each background loop", ["loop"])


JITTERED = 1.2
"""How many times the wait that a tick asks for a loop may sleep at the most, and as much less at the least."""


class Durations:
    """How long the rounds of some loops took lately, for whoever keeps count. Safe to use from several threads."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._lock = threading.Lock()

    def note(self, seconds: float) -> None:
        """Note a round."""
        with self._lock:
            self._seconds.append(seconds)

    def take(self) -> list[float]:
        """Take what was noted since the last time."""
        with self._lock:
            taken, self._seconds = self._seconds, []
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class TickResult:
    """What one tick did.

    Args:
        done: How many things it handled.
        wait: Seconds until the next tick is worth while; 0 when there was more than one tick may take.
        is_exact: Whether something is due after just that time; if not, the wait is spread.
    """

    done: int
    wait: float
    is_exact: bool = False


class Loop(Protocol):
    """One background duty."""

    name: str

    def tick(self) -> TickResult:
        """Do a bounded part of the duty."""


T = TypeVar("T")


def together_or_alone(act: Callable[[Sequence[T]], int], things: Sequence[T], failed: Callable[[T], None]) -> int:
    """Act on things together; if that fails, on each alone, so that one that cannot be handled holds up no other.

    Args:
        failed: Told of each thing that could not be handled even alone; the error has been logged.

    Raises:
        StoreUnavailable: Nothing can be handled now.
    """
    try:
        return act(things)
    except StoreUnavailable:
        raise
    except Exception:
        if len(things) == 1:
            log.exception("event_failed", thing=repr(things[0]))
            failed(things[0])
            return 0
    return sum(together_or_alone(act, [thing], failed) for thing in things)


class LoopRunner:
    """Runs one loop in a thread of its own until it is stopped.

    Args:
        durations: Told how long each round took; None for nobody.
    """

    def __init__(self, loop: Loop, durations: Durations | None = None) -> None:
        self.loop = loop
        self.ticked_at = time.monotonic()
        self._durations = durations
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=loop.name, daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End after the tick that is running."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping:
            result = self.tick()
            jitter = 1.0 if result.is_exact else random.uniform(2 - JITTERED, JITTERED)  # noqa: S311 - against herds
            self._wake.wait(result.wait * jitter)
            self._wake.clear()

    def tick(self) -> TickResult:
        """Tick once; errors are logged and counted."""
        started = time.monotonic()
        try:
            result = self.loop.tick()
        except StoreUnavailable as error:
            log.warning("loop_cannot_reach_store", loop=self.loop.name, error=str(error))
            TICKS.labels(self.loop.name, "unavailable").inc()
            return TickResult(done=0, wait=0.5)
        except Exception:
            log.exception("loop_failed", loop=self.loop.name)
            TICKS.labels(self.loop.name, "failed").inc()
            return TickResult(done=0, wait=1.0)
        finally:
            self.ticked_at = time.monotonic()
            SECONDS.labels(self.loop.name).observe(self.ticked_at - started)
            if self._durations is not None:
                self._durations.note(self.ticked_at - started)
        TICKS.labels(self.loop.name, "done").inc()
        return result
