"""How long `GET /instances` takes among very many instances: `python -m tests.benchmarks.lists`.

The instances are copies, in SQL, of one that the engine has run: of twenty tenants, the largest of which has a third,
in all states, of some sequences and namespaces, changed over a month, with metadata that many, some, few or one have,
some of them only the older ones. Each list is asked for again and again, in turn with all others, a page of 100 over an
open connection. The bar is for the p95 of all these requests together, and decides the exit status; the lists that are
above it by themselves are named.

With `--keep` a directory holds the database, and a later run goes on from there: with filling it, if it was broken off,
and else with the migrations that are new, so that what a change brings is seen on the same rows.
"""

import argparse
import contextlib
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2

from orchestrator import embedded
from orchestrator.embedded import Servers, with_database, without_driver
from orchestrator.store import migrate
from tests.benchmarks import ours
from tests.benchmarks.handlers import BUILT_IN
from tests.benchmarks.machine import check_filesystem
from tests.benchmarks.wire import Connection
from tests.benchmarks.works import percentile

BAR_MS = 20.0
PORTION = 20_000
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
  CASE WHEN random() < 0.001 THEN 'rare' WHEN nth = 2 THEN 'batch' WHEN random() < 0.2 THEN 'reports' ELSE 'default' END
    AS namespace,
  (%(sequences)s::uuid[])[1 + 3 * tenant + nth] AS sequence_id,
  (ARRAY['completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed', 'completed',
    'failed', 'failed', 'cancelled', 'scheduled', 'scheduled', 'waiting', 'waiting', 'running', 'paused'])
    [1 + floor(random() * 17)::int] AS state,
  moment AS created_at, moment + random() * interval '1 hour' AS updated_at,
  jsonb_build_object('often', (n %% 3)::text, 'some', (n %% 50)::text, 'few', n %% 5000, 'once', n::text,
    'import', CASE WHEN n BETWEEN %(count)s / 10 AND %(count)s / 5 THEN 'old' ELSE 'new' END,
    'half', CASE WHEN n %% 3 = 1 THEN 'a' ELSE 'b' END) AS metadata
FROM (SELECT n, floor(20 * power(random(), 3))::int AS tenant, floor(3 * power(random(), 2))::int AS nth,
  clock_timestamp() - (%(count)s - n) * interval '30 days' / %(count)s AS moment
  FROM generate_series(%(first)s, %(last)s) AS n) AS g
"""

# The sequences belong to the tenants whose instances are of them, so that their definitions are found.
_OF_TENANTS = """
UPDATE sequences s SET tenant_id = 'tenant-' || (n - 1) / 3
FROM unnest(%s::uuid[]) WITH ORDINALITY AS made (id, n) WHERE s.id = made.id
"""

LISTS: dict[str, tuple[str, str]] = {
    "all": (LARGE, ""),
    "all of a small tenant": (SMALL, ""),
    "all of a tenant without any": ("nobody", ""),
    "behind 1,000": (LARGE, "offset=1000"),
    "behind 1,000 of a state": (LARGE, "state=completed&offset=1000"),
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
    "a sequence and a state": (LARGE, "sequence_id={sequence}&state=running"),
    "a sequence, and a namespace it is not in": (LARGE, "sequence_id={sequence}&namespace=batch"),
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
    "metadata that only old ones have": (LARGE, "metadata.import=old"),
    "metadata that only old ones have, and a state": (LARGE, "metadata.import=old&state=failed"),
    "metadata of many, behind 1,000": (LARGE, "metadata.often=1&offset=1000"),
    "metadata of some, and a namespace": (LARGE, "metadata.some=7&namespace=reports"),
    "metadata of some, and a rare namespace": (LARGE, "metadata.some=7&namespace=rare"),
    "metadata of many, and a rare namespace": (LARGE, "metadata.often=1&namespace=rare"),
    "metadata of some, and a sequence": (LARGE, "metadata.some=7&sequence_id={sequence}"),
    "two of the metadata": (LARGE, "metadata.often=1&metadata.some=7"),
    "two of the metadata that many have": (LARGE, "metadata.often=1&metadata.half=a"),
    "two of the metadata, that none has both": (LARGE, "metadata.often=1&metadata.half=b"),
    "two of the metadata, one of old ones": (LARGE, "metadata.often=1&metadata.import=old"),
    "two of the metadata, and open ones": (LARGE, "metadata.often=1&metadata.some=7&state=running,waiting"),
    "metadata, a sequence, a namespace, a state": (
        LARGE,
        "metadata.some=7&sequence_id={sequence}&namespace=reports&state=completed",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A database that holds the instances.

    Args:
        sequences: Three of each tenant, as `SEQUENCES` says.
    """

    servers: Servers
    url: str
    sequences: tuple[UUID, ...]


def filled(directory: Path, logs: Path, count: int) -> Filled:
    """Start servers whose database holds so many copies; what the directory holds of them already stays."""
    servers = embedded.start(directory)
    check_filesystem(servers.data_directory or directory)
    url = with_database(servers.database_url, ours.DATABASE)
    if not _is_there(url):
        with ours.running(servers, logs, BUILT_IN) as bench:
            prepare(bench)
    migrate.upgrade(url)
    began = time.monotonic()
    copied, sequences = fill(url, count)
    print(f"{copied} instances copied in {time.monotonic() - began:.1f} s", flush=True)
    return Filled(servers=servers, url=url, sequences=sequences)


def _is_there(url: str) -> bool:
    """Tell whether a former run has prepared the database."""
    try:
        with contextlib.closing(psycopg2.connect(without_driver(url))) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('copied') IS NOT NULL")
            return cursor.fetchone() == (True,)
    except psycopg2.OperationalError:
        return False


def prepare(bench: ours.Orchestrator) -> None:
    """Run the instance that is copied, and keep in a table what it is and how far the copies have come."""
    sequences = [bench.define(f"lists-{number}", ours.flat(3, BUILT_IN)) for number in range(SEQUENCES)]
    [template] = bench.start(sequences[0], 1, data={"order": 4711, "customer": "c-0815"})
    bench.wait([template], time.perf_counter(), ours.COARSE_SECONDS)
    with bench.store.transaction() as tx:
        tx.execute("CREATE TABLE copied (template uuid, sequences uuid[], count int)")
        tx.execute("INSERT INTO copied VALUES (%s, %s::uuid[], 0)", (template, sequences))
        tx.execute(_OF_TENANTS, (sequences,))


def fill(url: str, count: int) -> tuple[int, tuple[UUID, ...]]:
    """Copy the instance until there are so many, under other names; then do what PostgreSQL does in the background.

    Returns:
        How many were copied now, and the sequences that the copies are of.
    """
    with contextlib.closing(psycopg2.connect(without_driver(url))) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT template, sequences::text[], count FROM copied")
            [(template, sequences, former)] = cursor.fetchall()
        for done in range(former, count, PORTION):
            with connection, connection.cursor() as cursor:
                last = min(done + PORTION, count)
                values: dict[str, Any] = {"sequences": sequences, "count": count, "first": done + 1, "last": last}
                cursor.execute("SET LOCAL statement_timeout = 0; SET LOCAL synchronous_commit = off")
                cursor.execute(_FRESH, values)
                for table, owner in TABLES.items():
                    cursor.execute(_copying(cursor, table, owner), (template,))
                cursor.execute("UPDATE copied SET count = %s", (last,))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")
            cursor.execute("VACUUM (ANALYZE)")
            with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
                cursor.execute("CHECKPOINT")
    return max(0, count - former), tuple(UUID(each) for each in sequences)


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


def measure(port: int, sequences: Sequence[UUID], repeat: int, only: str) -> dict[str, list[float]]:
    """Ask for each list so often, after one time to warm up; the milliseconds of each, infinity if it was given up."""
    names = {"sequence": sequences[0], "seldom": sequences[2]}
    took: dict[str, list[float]] = {name: [] for name in LISTS if only in name}
    for number in range(repeat + 1):
        for name, each in took.items():
            if math.inf in each:
                continue
            tenant, query = LISTS[name]
            with contextlib.closing(Connection(port, tenant=tenant)) as connection:
                began = time.perf_counter()
                answered = is_answered(connection, f"/api/v1/instances?{query.format(**names)}")
                if number or not answered:
                    each.append((time.perf_counter() - began) * 1000 if answered else math.inf)
    return took


def is_answered(connection: Connection, path: str) -> bool:
    """Ask for a page; False if the server gives up."""
    try:
        connection.get(path)
    except RuntimeError as problem:
        print(problem, file=sys.stderr, flush=True)
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill, measure and print; returns the exit status."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        directory = options.keep or Path(temporary) / "servers"
        try:
            logs = Path(temporary) / "logs"
            found = filled(directory, logs, options.count)
            with ours.serving(found.servers, found.url, logs) as port:
                return report(measure(port, found.sequences, options.repeat, options.only))
        finally:
            (embedded.stop if options.keep else embedded.remove)(directory)


def report(took: dict[str, list[float]]) -> int:
    """Print the milliseconds of each list, and of all requests; 1 if the p95 of all is above the bar, else 0."""
    print(f"{'list':50} {'p50':>8} {'p95':>8} {'most':>8}  ms")
    together = [milliseconds for each in took.values() for milliseconds in each]
    for name, each in (*took.items(), ("requests of all lists", together)):
        high = _p95(each)
        note = "  above" if high > BAR_MS else ""
        print(f"{name:50} {statistics.median(each):8.1f} {high:8.1f} {max(each):8.1f}{note}")
    above = sum(_p95(each) > BAR_MS for each in took.values())
    print(f"lists above {BAR_MS:g} ms by themselves: {above} of {len(took)}")
    return 1 if _p95(together) > BAR_MS else 0


def _p95(values: list[float]) -> float:
    return percentile(values, 95) if len(values) > 1 else values[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.lists", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="instances")
    parser.add_argument("--repeat", type=int, default=40, help="how often each list is asked for")
    parser.add_argument("--only", default="", help="ask only for lists whose name holds this")
    parser.add_argument("--keep", type=Path, help="directory whose database is gone on with, and stays")
    return parser


if __name__ == "__main__":
    sys.exit(main())
