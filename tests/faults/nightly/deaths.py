"""Deaths at named points: what brings a process to each of them, and the wait until one has died there."""

import signal
import time
from functools import partial

from tests.faults.nightly.site import WORKERS, Site
from tests.faults.stopped import send, standing_still, stop_with_claim
from tests.support.points import Asked, Point
from tests.support.waiting import wait_until

WITHIN_SECONDS = 60.0
STANDSTILL_SECONDS = 2.0
POLL_SECONDS = 0.05
_OF_DISPATCHER = (Point.BEFORE_DISPATCH, Point.AFTER_DISPATCH, Point.AFTER_HINTS)


def die_at(site: Site, point: Point) -> None:
    """Let a process die at a point, and start what has ended with it."""
    asked = Asked(site.points, point)
    try:
        if point in (Point.BEFORE_RECONCILIATION, Point.AFTER_RECONCILIATION):
            _kill_a_worker_with_claims(site)
        question = partial(_lose_hints, site, asked) if point in _OF_DISPATCHER else asked.who_died
        pid = wait_until(question, f"a process to die {point}", within=WITHIN_SECONDS)
    finally:
        asked.take_back()
    wait_until(lambda: site.stack.has_ended(pid), f"process {pid} to end", within=WITHIN_SECONDS)
    site.stack.start_all()


def _kill_a_worker_with_claims(site: Site) -> None:
    """Kill all of a worker at once: nobody of its own can tell of the loss."""
    worker = WORKERS[0]

    def pids() -> list[int]:
        return [site.stack.pid(worker), *site.stack.children(worker)]

    stop_with_claim(site.stack, worker, pids)
    send(signal.SIGKILL, pids())
    site.stack.kill(worker)


def _lose_hints(site: Site, asked: Asked) -> int | None:
    """Lose the hints of steps that wait for workers, so that they are sent anew; gives who has died of it, if anybody.

    The workers stand still, but for less than the six seconds after which nobody counts on them.
    """
    until = time.monotonic() + STANDSTILL_SECONDS
    with standing_still([pid for name in WORKERS for pid in (site.stack.pid(name), *site.stack.children(name))]):
        if site.has_waiting_steps():
            site.stack.flush_redis()
        while asked.who_died() is None and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
    return asked.who_died()
