"""How long `GET /instances` takes among very many instances: `python -m tests.benchmarks.lists`.

The instances are copies, in SQL, of one that the engine has run: of twenty tenants, the largest of which has a third,
in all states, of some sequences and namespaces, changed over a month, with metadata that many, some, few or one have.
Each list is asked for again and again, in turn with all others, a page of 100 over an open connection. The exit
status is 1 when the p95 of one is above the bar.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2

from orchestrator import embedded
from orchestrator.embedded import without_driver
from tests.benchmarks import ours
from tests.benchmarks.handlers import BUILT_IN
from tests.benchmarks.machine import check_filesystem
from tests.benchmarks.wire import Connection
from tests.benchmarks.works import percentile

BAR_MS = 20.0
PORTION = 50_000
"""Instances of one transaction."""
LARGE, SMALL = "tenant-0", "tenant-13"
SEQUENCES = 3 * 20
OVERRIDDEN = ("tenant_id", "namespace", "sequence_id", "state", "created_at", "updated_at", "metadata")
TABLES = {"instances": "id", "contexts": "instance_id"}
"""What a list reads, and the column that names the instance of a row."""

# Tenant 0 gets 37 %, tenant 13 some 2 %, tenant 19 one; each has three sequences, the first of which has the most.
# Ids and places of rows follow the order of creation, as they do where instances are created one after the other.
_FRESH = """
CREATE TEMPORARY TABLE fresh ON COMMIT DROP AS
SELECT uuidv7(moment - clock_timestamp()) AS id, 'tenant-' || tenant AS tenant_id,
  CASE WHEN random() < 0.001 THEN 'rare' WHEN random() < 0.2 THEN 'reports' ELSE 'default' END AS namespace,
  (%(sequences)s::uuid[])[1 + 3 * tenant + floor(3 * power(random(), 2))::int] AS sequence_id,
  (ARRAY['completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed',
    'failed', 'failed', 'cancelled', 'scheduled', 'scheduled', 'waiting', 'waiting', 'running', 'paused'])
    [1 + floor(random() * 17)::int] AS state,
  moment AS created_at, moment + random() * interval '1 hour' AS updated_at,
  jsonb_build_object('often', (n %% 3)::text, 'some', (n %% 50)::text, 'few', n %% 5000, 'once', n::text) AS metadata
FROM (SELECT n, floor(20 * power(random(), 3))::int AS tenant,
  clock_timestamp() - (%(count)s - n) * interval '30 days' / %(count)s AS moment
  FROM generate_series(%(first)s, %(last)s) AS n) AS g
"""

LISTS: dict[str, tuple[str, str]] = {
    "all": (LARGE, ""),
    "all of a small tenant": (SMALL, ""),
    "all of a tenant without any": ("nobody", ""),
    "behind 1,000": (LARGE, "offset=1000"),
    "a state": (LARGE, "state=failed"),
    "open ones": (LARGE, "state=scheduled,running,waiting,paused"),
    "a state of a small tenant": (SMALL, "state=running"),
    "a namespace": (LARGE, "namespace=default"),
    "a small namespace": (LARGE, "namespace=reports"),
    "a rare namespace": (LARGE, "namespace=rare"),
    "a rare namespace and a state": (LARGE, "namespace=rare&state=failed"),
    "a namespace that is not there": (LARGE, "namespace=none"),
    "a namespace of a small tenant": (SMALL, "namespace=rare"),
    "a sequence": (LARGE, "sequence_id={sequence}"),
    "a sequence, a namespace and a state": (LARGE, "sequence_id={sequence}&namespace=reports&state=failed"),
    "a sequence that few are of": (LARGE, "sequence_id={seldom}"),
    "a rare namespace of a sequence": (LARGE, "sequence_id={sequence}&namespace=rare"),
    "metadata that many have": (LARGE, "metadata.often=1"),
    "metadata that some have": (LARGE, "metadata.some=7"),
    "metadata that some have, in a small tenant": (SMALL, "metadata.some=7"),
    "metadata that few have": (LARGE, "metadata.few=77"),
    "metadata that one has": (LARGE, "metadata.once=4711"),
    "metadata that none has": (LARGE, "metadata.once=none"),
    "metadata nobody has heard of": (LARGE, "metadata.colour=red"),
    "metadata of many, and a state": (LARGE, "metadata.often=1&state=failed"),
    "metadata of some, and a state": (LARGE, "metadata.some=7&state=paused"),
    "two of the metadata": (LARGE, "metadata.often=1&metadata.some=7"),
    "metadata, a sequence, a namespace, a state": (
        LARGE,
        "metadata.some=7&sequence_id={sequence}&namespace=reports&state=completed",
    ),
}


def fill(url: str, template: UUID, sequences: Sequence[UUID], count: int) -> None:
    """Copy an instance that has ended, under other names; then do what PostgreSQL would do in the background."""
    with contextlib.closing(psycopg2.connect(without_driver(url))) as connection:
        for begin in range(1, count + 1, PORTION):
            with connection, connection.cursor() as cursor:
                values: dict[str, Any] = {"sequences": list(map(str, sequences)), "count": count}
                cursor.execute(_FRESH, values | {"first": begin, "last": min(begin + PORTION, count + 1) - 1})
                for table, owner in TABLES.items():
                    cursor.execute(_copying(cursor, table, owner), (str(template),))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)")
            with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
                cursor.execute("CHECKPOINT")


def _copying(cursor: Any, table: str, owner: str) -> str:
    cursor.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
        "AND attgenerated = '' ORDER BY attnum",
        (table,),
    )
    columns = [name for (name,) in cursor.fetchall()]
    values = ", ".join(
        "fresh.id" if name == owner else f"fresh.{name}" if name in OVERRIDDEN else f"kept.{name}" for name in columns
    )
    names = ", ".join(columns)
    return f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} AS kept, fresh WHERE kept.{owner} = %s"


def template_of(bench: ours.Orchestrator) -> tuple[UUID, list[UUID]]:
    """Run one instance; returns it, and the sequences that its copies are of."""
    sequences = [bench.define(f"lists-{number}", ours.flat(3, BUILT_IN)) for number in range(SEQUENCES)]
    [id_] = bench.start(sequences[0], 1, data={"order": 4711, "customer": "c-0815"})
    bench.wait([id_], time.perf_counter(), ours.COARSE_SECONDS)
    return id_, sequences


def measure(port: int, sequences: Sequence[UUID], repeat: int) -> dict[str, list[float]]:
    """Ask for each list so often, after one time to warm up; the milliseconds of each."""
    names = {"sequence": sequences[0], "seldom": sequences[2]}
    took: dict[str, list[float]] = {name: [] for name in LISTS}
    for number in range(repeat + 1):
        for name, (tenant, query) in LISTS.items():
            with contextlib.closing(Connection(port, tenant=tenant)) as connection:
                began = time.perf_counter()
                connection.get(f"/api/v1/instances?{query.format(**names)}")
                if number:
                    took[name].append((time.perf_counter() - began) * 1000)
    return took


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill, measure and print; returns the exit status."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary) / "servers"
        try:
            servers = embedded.start(directory)
            check_filesystem(servers.data_directory)
            with ours.running(servers, Path(temporary) / "logs", BUILT_IN, apis=1) as bench:
                template, sequences = template_of(bench)
                began = time.monotonic()
                fill(bench.url, template, sequences, options.count)
                print(f"{options.count} instances copied in {time.monotonic() - began:.1f} s", flush=True)
                return report(measure(bench.ports[0], sequences, options.repeat))
        finally:
            embedded.remove(directory)


def report(took: dict[str, list[float]]) -> int:
    above = 0
    print(f"{'list':50} {'p50':>8} {'p95':>8} {'most':>8}  ms")
    for name, each in took.items():
        high = percentile(each, 95)
        above += high > BAR_MS
        print(
            f"{name:50} {statistics.median(each):8.1f} {high:8.1f} {max(each):8.1f}{'  above' if high > BAR_MS else ''}"
        )
    return 1 if above else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.lists", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="instances")
    parser.add_argument("--repeat", type=int, default=100, help="how often each list is asked for")
    return parser


if __name__ == "__main__":
    sys.exit(main())
