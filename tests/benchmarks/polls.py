"""What tasks of HTTP workers cost: `python -m tests.benchmarks.polls`.

Workers poll one queue over kept connections, and complete what they are given at once, so all of them wait for the
server nearly all of the time. It prints tasks per second, how long a poll takes from its sending until the whole answer
has arrived, and the CPU that each part has used for a task: this client, the API processes, the loops, PostgreSQL.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import embedded
from orchestrator.embedded import Servers
from tests.benchmarks import ours
from tests.benchmarks.machine import check_filesystem
from tests.benchmarks.processes import spent_by_part
from tests.benchmarks.wire import TENANT
from tests.benchmarks.works import percentile
from tests.support.fleet import Fleet, Worker

PARTS = ("client", "API", "loops", "PostgreSQL")
MICROSECONDS = 1e6
QUEUE = "polls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """What one run came to.

    Args:
        rate: Tasks per second.
        polls: Milliseconds of each poll that gave a task.
        completions: Milliseconds of each completion.
        cpu: Microseconds of CPU for each task, by part.
    """

    rate: float
    polls: list[float]
    completions: list[float]
    cpu: dict[str, float]


def measure(bench: ours.Orchestrator, servers: Servers, count: int, workers: int) -> Polling:
    """Start tasks, let workers do them, and read what that has cost."""
    handler = f"polls.{time.monotonic_ns()}"
    bench.start(bench.define(handler, [{"type": "step", "id": "a", "handler": handler, "queue_name": QUEUE}]), count)
    fleet = Fleet(
        [
            Worker(bench.ports[number % len(bench.ports)], f"w{number}", tenant=TENANT, handler=handler, queue=QUEUE)
            for number in range(workers)
        ]
    )
    before = spent_by_part(servers)
    began = time.perf_counter()
    fleet.work(count)
    took = time.perf_counter() - began
    after = spent_by_part(servers)
    cpu = {part: (after[part] - before[part]) / count * MICROSECONDS for part in PARTS}
    return Polling(rate=count / took, polls=fleet.polls, completions=fleet.completions, cpu=cpu)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary) / "servers"
        try:
            servers = embedded.start(directory)
            check_filesystem(directory)
            with ours.running(servers, Path(temporary) / "logs", "noop", apis=options.apis, workers=0) as bench:
                measure(bench, servers, options.count // 4, options.workers)
                _report([measure(bench, servers, options.count, options.workers) for _ in range(options.repeat)])
        finally:
            embedded.remove(directory)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.polls", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="tasks of one run")
    parser.add_argument("--workers", type=int, default=50, help="workers, each with a connection of its own")
    parser.add_argument("--apis", type=int, default=1, help="API processes")
    parser.add_argument("--repeat", type=int, default=3, help="runs, after one to warm up")
    return parser


def _report(runs: Sequence[Polling]) -> None:
    print(f"median (minimum to maximum) of {len(runs)}:")
    figures = {
        "tasks per second": [each.rate for each in runs],
        "ms of a poll, p50": [percentile(each.polls, 50) for each in runs],
        "ms of a poll, p95": [percentile(each.polls, 95) for each in runs],
        "ms of a completion, p50": [percentile(each.completions, 50) for each in runs],
        "ms of a completion, p95": [percentile(each.completions, 95) for each in runs],
        **{f"us of CPU of a task: {part}": [each.cpu[part] for each in runs] for part in PARTS},
    }
    for name, values in figures.items():
        print(f"  {statistics.median(values):9.1f} ({min(values):.1f} to {max(values):.1f}) {name}")


if __name__ == "__main__":
    main()
