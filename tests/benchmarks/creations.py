"""What creating instances through HTTP costs: `python -m tests.benchmarks.creations`.

Instances of one step are created, in batches or one by one, over kept connections whose requests are written
beforehand. Nobody runs them: there is no worker and no loop. It prints instances per second, and the CPU that each part
has used for an instance: this client, the API processes, PostgreSQL.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from orchestrator import embedded
from orchestrator.embedded import Servers
from tests.benchmarks import ours, web
from tests.benchmarks.handlers import BUILT_IN
from tests.benchmarks.machine import check_filesystem
from tests.benchmarks.processes import spent_by_part
from tests.benchmarks.wire import TENANT, Connection, spread

PARTS = ("client", "API", "PostgreSQL")
MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """What one run came to.

    Args:
        rate: Instances per second.
        cpu: Microseconds of CPU for each instance, by part.
        wal: Bytes of the write-ahead log for each instance.
    """

    rate: float
    cpu: dict[str, float]
    wal: float

    @property
    def whole(self) -> float:
        """Microseconds of CPU of all parts for each instance."""
        return sum(self.cpu.values())


def contents(bench: ours.Orchestrator, count: int, batch: int | None, members: int) -> list[bytes]:
    """Write the bodies of requests that create so many instances; None for single ones."""
    sequence_id = bench.define(f"creations-{time.monotonic_ns()}", ours.flat(1, BUILT_IN))
    body = {
        "sequence_id": str(sequence_id),
        "tenant_id": TENANT,
        "namespace": TENANT,
        "context": {"data": {"order": 4711, "customer": "c-0815"}},
        "metadata": {f"member-{number}": f"text {number}" for number in range(members)} or None,
    }
    if batch is None:
        return [orjson.dumps(body)] * count
    sizes = [min(batch, count - done) for done in range(0, count, batch)]
    return [orjson.dumps({"instances": [body] * size}) for size in sizes]


def measure(
    bench: ours.Orchestrator, servers: Servers, count: int, batch: int | None, options: argparse.Namespace
) -> Creation:
    """Create instances, and read what that has cost."""
    path = "/instances" if batch is None else "/instances/batch"
    wanted = contents(bench, count, batch, options.members)

    def send(connection: Connection, content: bytes) -> None:
        connection.request("POST", path, content)

    with web.connections(bench, options.connections) as opened:
        before, logged = spent_by_part(servers), _logged(bench)
        began = time.perf_counter()
        spread(opened, wanted, send)
        took = time.perf_counter() - began
        after = spent_by_part(servers)
    cpu = {part: (after[part] - before[part]) / count * MICROSECONDS for part in PARTS}
    return Creation(rate=count / took, cpu=cpu, wal=(_logged(bench) - logged) / count)


def _logged(bench: ours.Orchestrator) -> float:
    with bench.store.transaction() as tx:
        return float(tx.query("SELECT pg_current_wal_insert_lsn() - '0/0'")[0][0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary) / "servers"
        try:
            servers = embedded.start(directory)
            check_filesystem(servers.data_directory)
            logs = Path(temporary) / "logs"
            with ours.running(servers, logs, BUILT_IN, apis=options.apis, workers=0, loops=False) as bench:
                for batch, count in ((options.batch, options.count), (None, options.count // 20)):
                    _report(bench, servers, count, batch, options)
        finally:
            embedded.remove(directory)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.creations", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40_000, help="instances of one run in batches")
    parser.add_argument("--batch", type=int, default=500, help="instances of one request")
    parser.add_argument("--members", type=int, default=0, help="members of the metadata of each instance")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--apis", type=int, default=web.APIS, help="API processes")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each kind, after one to warm up")
    return parser


def _report(
    bench: ours.Orchestrator, servers: Servers, count: int, batch: int | None, options: argparse.Namespace
) -> None:
    measure(bench, servers, max(count // 4, 1), batch, options)
    runs = [measure(bench, servers, count, batch, options) for _ in range(options.repeat)]
    name = "single requests" if batch is None else f"batches of {batch}"
    rates = [each.rate for each in runs]
    print(
        f"{name}, {options.members} members of metadata, {options.connections} connections, "
        f"{options.apis} API processes, median (minimum to maximum) of {len(runs)}:"
    )
    print(f"  {statistics.median(rates):9.0f} ({min(rates):.0f} to {max(rates):.0f}) instances per second")
    for part in PARTS:
        costs = [each.cpu[part] for each in runs]
        print(f"  {statistics.median(costs):9.1f} ({min(costs):.1f} to {max(costs):.1f}) us of CPU each: {part}")
    costs = [each.whole for each in runs]
    print(f"  {statistics.median(costs):9.1f} ({min(costs):.1f} to {max(costs):.1f}) us of CPU each in all")
    print(f"  {statistics.median(each.wal for each in runs):9.0f} bytes of WAL each")


if __name__ == "__main__":
    main()
