"""Where the time of a step goes: `python -m tests.benchmarks.costs`.

One process drives the engine as a worker does (claim, inputs, finish and carry on), without broker and handlers, along
three paths: one step for each commit, batches, and batches with the steps that follow in the same commit. It prints the
wall and CPU time of a step, the profile, and what each statement of a commit costs when they are sent one by one.
"""

import cProfile
import pstats
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from orchestrator import embedded
from orchestrator.carry import CarryOn
from orchestrator.core.outcomes import Completed
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance, Report, Wish
from orchestrator.settings import Settings
from orchestrator.store.claiming import Worker
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store, Transaction
from tests.benchmarks.handlers import BUILT_IN
from tests.benchmarks.ours import define, flat, new_database

ME = Worker(id=uuid4(), name="costs", slot=1)
LINES = 45
ROUNDS = 7
MEASURED = ("ms of time", "ms of CPU in this process", "ms of CPU in its server process", "bytes of WAL")


class Route:
    """One way of driving the engine: `instances` of `length` steps, `batch` of them reported in a commit."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        name: str,
        *,
        instances: int,
        length: int,
        batch: int,
        runs_ahead: bool = False,
    ) -> None:
        self.name = name
        self._store = store
        self._engine = engine
        self._instances = instances
        self._batch = batch
        self._effectless = frozenset({BUILT_IN}) if runs_ahead else frozenset[str]()
        self._sequence = define(store, name, flat(length, BUILT_IN))

    def start(self) -> None:
        """Start the instances."""
        new = NewInstance(sequence_id=self._sequence, tenant_id="bench", namespace="bench")
        self._engine.start_many([new] * self._instances)

    def readings(self) -> tuple[float, ...]:
        """Read what `MEASURED` names, as it stands now."""
        with self._store.transaction() as tx:
            [(server, written)] = tx.query("SELECT pg_backend_pid(), pg_current_wal_insert_lsn() - '0/0'")
        # Nanoseconds on a core; /proc/<pid>/stat counts in hundredths of a second.
        on_core = int(Path(f"/proc/{server}/schedstat").read_text().split()[0]) / 1e6
        return time.perf_counter() * 1000, time.process_time() * 1000, on_core, float(written)

    def drive(self) -> int:
        """Run everything that is ready; returns the number of steps."""
        known = frozenset({BUILT_IN})
        wish = Wish(queue="default", handlers=[BUILT_IN], together=known, limit=self._batch)
        carry_on = CarryOn(
            worker=ME,
            queues=frozenset({"default"}),
            handlers=known,
            instant=known,
            limit=self._batch,
            rounds_left=_one_more,
            effectless=self._effectless,
            run=lambda _work: Completed(output={}),
        )
        ran = 0
        claims = self._engine.claim(ME, wish)
        while claims:
            reports = [Report(claim=work.claim, outcome=Completed(output={})) for work in self._engine.inputs(claims)]
            finished = self._engine.finish(reports, carry_on)
            ran += len(reports) + len(finished.ahead)
            claims = list(finished.claims) or self._engine.claim(ME, wish)
        return ran


def _one_more(_instance_id: UUID) -> int:
    return 1


def main() -> None:
    """Measure all paths and print what they cost."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary) / "servers"
        try:
            url = new_database(embedded.start(directory))
            store = PostgresStore(url)
            engine = Engine(store, lambda _hints: None, Settings(database_url=url))
            for path in (
                Route(store, engine, "one step for each commit", instances=10, length=100, batch=1),
                Route(store, engine, "batches of 32", instances=200, length=10, batch=32),
                Route(store, engine, "ahead, batches of 32", instances=200, length=10, batch=32, runs_ahead=True),
            ):
                _report(path)
            store.close()
        finally:
            embedded.remove(directory)


def _report(path: Route) -> None:
    _timed(path)  # warm-up
    rounds = [_timed(path) for _ in range(ROUNDS)]
    print(f"\n{path.name}, each step, median (minimum) of {ROUNDS}:")
    for name, column in zip(MEASURED, zip(*rounds, strict=True), strict=True):
        print(f"{statistics.median(column):9.3f} ({min(column):.3f}) {name}")
    path.start()
    with Statements() as statements:
        ran = path.drive()
    statements.show(ran)
    path.start()
    profile = cProfile.Profile()
    profile.runcall(path.drive)
    pstats.Stats(profile).sort_stats("tottime").print_stats(LINES)


def _timed(path: Route) -> tuple[float, ...]:
    path.start()
    before = path.readings()
    ran = path.drive()
    return tuple((after - first) / ran for first, after in zip(before, path.readings(), strict=True))


class Statements:
    """Sends the statements of a transaction one by one, and notes how long each took."""

    def __init__(self) -> None:
        self._took: dict[str, list[float]] = defaultdict(list)
        self._original = Transaction.__init__

    def __enter__(self) -> "Statements":
        original, took = self._original, self._took

        def opened(tx: Transaction, connection: Any, **options: Any) -> None:
            original(tx, connection, **options)
            tx.cursor = _Cursor(tx.cursor, took)

        Transaction.__init__ = opened  # type: ignore[assignment, method-assign]
        return self

    def __exit__(self, *_error: object) -> None:
        Transaction.__init__ = self._original  # type: ignore[method-assign]

    def counts(self) -> dict[str, int]:
        """Say how often each kind of statement was sent."""
        return {name: len(took) for name, took in self._took.items()}

    def show(self, steps: int) -> None:
        """Print what each kind of statement costs a step."""
        for name, took in sorted(self._took.items(), key=lambda item: -sum(item[1])):
            each, share = statistics.median(took) * 1000, sum(took) / steps * 1000
            print(f"{len(took):6d} x {each:7.3f} ms (median) {share:7.3f} ms of each step  {name}")


class _Cursor:
    """Sends what comes as one message statement by statement, and all of it as one transaction nevertheless."""

    def __init__(self, cursor: Any, took: dict[str, list[float]]) -> None:
        self._cursor = cursor
        self._took = took

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, message: bytes | str) -> None:
        text = message if isinstance(message, str) else message.decode()
        connection = self._cursor.connection
        is_within = connection.get_transaction_status() != TRANSACTION_STATUS_IDLE or text.startswith("BEGIN")
        if not is_within:
            self._timed("BEGIN", connection.cursor())
        for part in text.split(";\n"):
            self._timed(part, self._cursor)
        if not is_within:
            # By a cursor of its own: this one has the answer.
            self._timed("COMMIT", connection.cursor())

    def _timed(self, statement: str, cursor: Any) -> None:
        began = time.perf_counter()
        cursor.execute(statement)
        self._took[" ".join(statement.split()[:2])].append(time.perf_counter() - began)


if __name__ == "__main__":
    main()
