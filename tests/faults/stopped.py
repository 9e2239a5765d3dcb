"""Processes that stand still, and workers that do while they hold claims."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.journey import StepKey
from tests.support.stack import Stack
from tests.support.waiting import wait_until


@contextmanager
def standing_still(pids: Sequence[int]) -> Iterator[None]:
    """Stop processes for a block."""
    send(signal.SIGSTOP, pids)
    try:
        yield
    finally:
        send(signal.SIGCONT, pids)


def send(number: signal.Signals, pids: Sequence[int]) -> None:
    """Send a signal to processes; their parent may have killed one that did not move."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def held_by(stack: Stack, worker: str) -> list[StepKey]:
    """Name the steps that a stopped worker has claimed, but for those whose outcome is being committed without it.

    A commit holds the lock of its instance from the worker's first message to its last. The step is locked too, so that
    it is read as it is then, and not as it was when this statement began. A commit of one message may be on its way to
    the server: what is held a moment later is not among what it ends.
    """
    first = _claimed_by(stack, worker)
    time.sleep(0.2)
    later = _claimed_by(stack, worker)
    return [key for key in first if key in later]


def _claimed_by(stack: Stack, worker: str) -> list[StepKey]:
    rows = stack.query(
        "SELECT s.instance_id, s.block_id, s.iteration FROM steps s JOIN workers w ON w.id = s.worker_id "
        "JOIN instances i ON i.id = s.instance_id WHERE s.state = 'claimed' AND w.name LIKE %s "
        "FOR SHARE OF i, s SKIP LOCKED",
        (f"{worker}@%",),
    )
    return [StepKey(row[0], row[1], tuple(row[2])) for row in rows]


def is_stopped(pid: int) -> bool:
    """Tell whether no thread of a process runs any more: a signal to stop takes effect a moment after it was sent."""
    states = [
        (thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in Path(f"/proc/{pid}/task").iterdir()
    ]
    return set(states) <= {"T", "Z"}


def stop_with_claim(stack: Stack, worker: str, pids: Callable[[], Sequence[int]]) -> list[StepKey]:
    """Stop processes of a worker at a moment when it holds a claim, and say what it holds."""

    def held() -> list[StepKey]:
        stopped = list(pids())
        send(signal.SIGSTOP, stopped)
        wait_until(lambda: all(map(is_stopped, stopped)), f"{worker} to stand still", within=30)
        if claims := held_by(stack, worker):
            return claims
        send(signal.SIGCONT, pids())
        return []

    return wait_until(held, f"{worker} to hold a claim", within=90)
