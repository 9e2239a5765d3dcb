"""How long work of the dead waits: kill -9 of workers, and an emptied Redis (`make recovery`).

Several workers are killed at once while each holds a step; others go on. What counts is when each of those steps begins
to run again, by the clock of the handlers.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator import embedded
from tests.faults.journey import StepKey
from tests.faults.slowness import measured
from tests.faults.stopped import stop_with_claim
from tests.support.stack import Stack, WorkerSpec
from tests.support.waiting import wait_until

VICTIMS = tuple(f"victim-{number}" for number in range(1, 6))
QUEUES = ("default", "red", "blue")
KILL_SECONDS, FLUSH_SECONDS = 8.0, 5.0
"""The bars, for a machine with nothing else to do."""
SILENT_SECONDS = 6.0
"""Of the 8 s this is waiting, which takes as long on any machine."""
STEP_MS = 200
INSTANCES_PER_SECOND = 15.0


@contextmanager
def installation(directory: Path) -> Iterator[Stack]:
    """Run five workers to be killed, and one that is not."""
    workers = {name: WorkerSpec() for name in VICTIMS} | {"survivor": WorkerSpec(queues=QUEUES, concurrency=5)}
    with Stack.running(directory, workers=workers) as stack:
        yield stack


def kill_victims(stack: Stack) -> list[float]:
    """Kill five workers that hold steps; returns the seconds until each step began to run again."""
    sequence_id = stack.define([{"type": "step", "id": "only", "handler": "effect", "params": {"ms": STEP_MS}}])
    held: dict[StepKey, float] = {}
    with _steady(stack, sequence_id):
        for name in VICTIMS:
            keys = stop_with_claim(stack, name, lambda name=name: [stack.pid(name), *stack.children(name)])  # type: ignore[misc]
            died_at = time.time()
            stack.kill(name)
            held |= dict.fromkeys(keys, died_at)
        wait_until(lambda: _begun_again(stack, held).keys() == held.keys(), "all steps to begin again")
    stack.start_all()
    return list(_begun_again(stack, held).values())


def _begun_again(stack: Stack, held: dict[StepKey, float]) -> dict[StepKey, float]:
    keys = {key.text: key for key in held}
    found: dict[StepKey, float] = {}
    for execution in stack.effects.executions():
        key = keys.get(execution.key)
        if key is not None and execution.started_at > held[key]:
            found.setdefault(key, execution.started_at - held[key])
    return found


@contextmanager
def _steady(stack: Stack, sequence_id: object) -> Iterator[None]:
    """Start instances at a steady pace."""
    is_over = threading.Event()

    def feed() -> None:
        while not is_over.wait(1 / INSTANCES_PER_SECOND):
            stack.start_instances(sequence_id)  # type: ignore[arg-type]

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def flush(stack: Stack) -> list[float]:
    """Empty Redis while it holds hints of three queues; returns the seconds until each queue moved."""
    survivor = stack.pid("survivor")
    ids = {}
    pids = [pid for name in stack.workers for pid in (stack.pid(name), *stack.children(name))]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for queue in QUEUES:
            step = {"type": "step", "id": "only", "handler": "effect", "queue": queue}
            ids[queue] = stack.start_instances(stack.define([step]), 5)
        every = [each for some in ids.values() for each in some]
        wait_until(lambda: _hinted(stack, every) > 0, "hints to be out")
        stack.flush_redis()
        began = time.time()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    stack.wait_for_end(every)
    assert stack.pid("survivor") == survivor
    rows = stack.query(
        "SELECT instance_id, extract(epoch FROM min(ended_at))::float8 FROM attempts "
        "WHERE outcome = 'completed' AND instance_id = ANY(%s::uuid[]) GROUP BY instance_id",
        (every,),
    )
    ended = dict(rows)
    return [min(ended[each] for each in some) - began for some in ids.values()]


def _hinted(stack: Stack, ids: Sequence[object]) -> int:
    [[count]] = stack.query(
        "SELECT count(*) FROM steps WHERE hinted_at IS NOT NULL AND instance_id = ANY(%s::uuid[])", (list(ids),)
    )
    return int(count)


def percentile(seconds: Sequence[float], share: float) -> float:
    """Give the value that a share of the others do not exceed.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.99)
    4.0
    """
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main() -> int:
    """Kill, flush, and hold what was measured against the bars; returns 1 if one was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.recovery")
    parser.add_argument("--kills", type=int, default=200)
    kills = parser.parse_args().kills
    directory = Path(tempfile.mkdtemp(prefix="recovery-"))
    directory.chmod(0o711)
    killed: list[float] = []
    flushed: list[float] = []
    try:
        with installation(directory / "stack") as stack, measured() as slowness:
            while len(killed) < kills:
                killed += kill_victims(stack)
                flushed += flush(stack)
                print(
                    f"{len(killed)} kills: worst {max(killed):.2f} s; flushed: worst {max(flushed):.2f} s", flush=True
                )
    finally:
        embedded.remove(directory / "stack" / "servers")
    p99 = percentile(killed, 0.99)
    print(
        f"kill -9: {len(killed)} steps, median {statistics.median(killed):.2f} s, p99 {p99:.2f} s of {KILL_SECONDS:g}\n"
        f"FLUSHALL: {len(flushed)} queues, worst {max(flushed):.2f} s of {FLUSH_SECONDS:g}\n"
        f"machine {slowness.factor:.1f} times slower than a quiet one"
    )
    return int(p99 > KILL_SECONDS or max(flushed) > FLUSH_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
