"""Fails when speed has been lost: `python -m tests.benchmarks.guard`, or `make bench-guard`.

A figure in milliseconds says as much about the machine as about the engine. So the guard measures DBOS in the same
run and holds ratios against floors. A machine that is busy slows down one repeat of one engine, so both engines run at
once, idle but for the work that is done, their repeats take turns, and the best repeat of each counts. Floors lie far
below what a quiet machine shows (docs/performance.md); they catch what makes a work several times slower.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import embedded
from tests.benchmarks import machine, ours
from tests.benchmarks.handlers import PLAIN
from tests.benchmarks.works import IDLE_SECONDS, Bench, digits, percentile

REPEATS = 3
CHAINS = 4
"""Instances of W2 in a repeat."""

FOLDER = Path("build")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """One work, and the least ratio of our speed to the peer's that is accepted."""

    name: str
    floor: float
    seconds: Callable[[Bench], float]


def _throughput(bench: Bench) -> float:
    return 1 / bench.throughput()


def _step(bench: Bench) -> float:
    durations = []
    for _ in range(CHAINS):
        time.sleep(IDLE_SECONDS)
        durations += bench.chain().durations_ms()
    return percentile(durations, 50) / 1000


def _fan_out(bench: Bench) -> float:
    return bench.fan_out()


GUARDED = (
    Guarded(name="W1", floor=1.5, seconds=_throughput),
    Guarded(name="W2 p50", floor=0.5, seconds=_step),
    Guarded(name="W3", floor=1.0, seconds=_fan_out),
)


def ratios(ours_: Bench, peer: Bench, repeats: int = REPEATS) -> dict[str, float]:
    """Do each work on both engines in turn; returns how many times faster the best repeat of ours is."""
    found = {}
    for guarded in GUARDED:
        for bench in (ours_, peer):
            guarded.seconds(bench)
        rounds = [(guarded.seconds(ours_), guarded.seconds(peer)) for _ in range(repeats)]
        mine, theirs = (min(column) for column in zip(*rounds, strict=True))
        found[guarded.name] = theirs / mine
    return found


def lost(found: dict[str, float]) -> list[str]:
    """Name the works whose ratio is below its floor."""
    return [guarded.name for guarded in GUARDED if found[guarded.name] < guarded.floor]


def main(arguments: Sequence[str] = ()) -> int:
    """Measure, and print each ratio beside its floor; returns 1 when one is below. An argument sets the repeats."""
    from tests.benchmarks import peer_dbos  # DBOS is an optional dependency

    began = time.monotonic()
    repeats = int(arguments[0]) if arguments else REPEATS
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=FOLDER, ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary) / "servers"
        try:
            servers = embedded.start(directory)
            if servers.data_directory is not None:
                machine.check_filesystem(servers.data_directory)
            logs = FOLDER / "bench-logs"
            with contextlib.ExitStack() as stack:
                mine = stack.enter_context(ours.running(servers, logs, PLAIN))
                theirs = stack.enter_context(peer_dbos.running(servers, logs, FOLDER))
                found = ratios(mine, theirs, repeats)
        finally:
            embedded.remove(directory)
    for guarded in GUARDED:
        print(f"{guarded.name}: {digits(found[guarded.name])} times as fast as DBOS (floor: {guarded.floor:g})")
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if lost(found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
