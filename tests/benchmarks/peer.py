"""The same works on DBOS: two processes that listen to one queue, on the same PostgreSQL.

Workflows are enqueued by DBOS's own client, many in one transaction where that is faster. Neither its telemetry nor
its Conductor is used, so it talks to nothing but PostgreSQL.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient
from sqlalchemy.engine import make_url

from orchestrator import embedded
from orchestrator.dev import ChildSpec
from orchestrator.embedded import Servers
from tests.benchmarks.figures import PEER
from tests.benchmarks.machine import check_durability
from tests.benchmarks.ours import COARSE_SECONDS, FINE_SECONDS, READY_SECONDS, WORK_SECONDS, WORKERS, supervised
from tests.benchmarks.peer_process import QUEUE
from tests.benchmarks.works import (
    W1_INSTANCES,
    W1_STARTED_TOGETHER,
    W1_STEPS,
    W2_STEPS,
    W3_WIDTH,
    W4_STEPS,
    Chain,
)

DATABASE = "bench_dbos"


class Dbos:
    """DBOS as a `Bench`; made by `running`."""

    engine = PEER

    def __init__(self, client: DBOSClient, database: sa.Engine) -> None:
        self._client = client
        self._database = database

    def throughput(self) -> float:
        """Do W1."""
        began = time.perf_counter()
        ids: list[str] = []
        while len(ids) < W1_INSTANCES:
            ids += self._start("steps", min(W1_STARTED_TOGETHER, W1_INSTANCES - len(ids)), W1_STEPS)
        took = self._wait(ids, began, COARSE_SECONDS)
        steps = W1_INSTANCES * W1_STEPS
        self._expect(ids, steps)
        return steps / took

    def chain(self) -> Chain:
        """Do one workflow of W2."""
        return self._chain(W2_STEPS)

    def fan_out(self) -> float:
        """Do W3."""
        began = time.perf_counter()
        ids = self._start("fan_out", 1, W3_WIDTH)
        took = self._wait(ids, began, FINE_SECONDS)
        self._expect(ids, W3_WIDTH)
        return took

    def long_chain(self) -> Chain:
        """Do W4."""
        return self._chain(W4_STEPS)

    def _chain(self, length: int) -> Chain:
        ids = self._start("steps", 1, length)
        self._wait(ids, time.perf_counter(), COARSE_SECONDS)
        self._expect(ids, length)
        rows = self._query("SELECT created_at FROM dbos.workflow_status WHERE workflow_uuid = ANY(:ids)", ids)
        return Chain(accepted=rows[0][0] / 1000, ended=self._client.retrieve_workflow(ids[0]).get_result())

    def _start(self, workflow: str, count: int, argument: int) -> list[str]:
        with self._database.begin() as connection:
            return [
                self._client.enqueue_in_transaction(
                    connection, {"workflow_name": workflow, "queue_name": QUEUE}, argument
                ).get_workflow_id()
                for _ in range(count)
            ]

    def _wait(self, ids: Sequence[str], began: float, pause: float) -> float:
        while True:
            rows = self._query(
                "SELECT status, count(*) FROM dbos.workflow_status WHERE workflow_uuid = ANY(:ids) GROUP BY status", ids
            )
            took = time.perf_counter() - began
            states = {row[0]: row[1] for row in rows}
            if states.get("SUCCESS") == len(ids):
                return took
            if took > WORK_SECONDS or "ERROR" in states:
                raise RuntimeError(f"after {took:.1f} s the workflows of a work are {states}")
            time.sleep(pause)

    def _expect(self, ids: Sequence[str], steps: int) -> None:
        """Check that every step has left its row."""
        rows = self._query("SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ANY(:ids)", ids)
        if rows[0][0] != steps:
            raise RuntimeError(f"DBOS has recorded {rows[0][0]} steps, {steps} expected")

    def _query(self, statement: str, ids: Sequence[str]) -> Sequence[Any]:
        with self._database.connect() as connection:
            return connection.execute(sa.text(statement), {"ids": list(ids)}).all()


@contextlib.contextmanager
def running(servers: Servers, logs: Path) -> Iterator[Dbos]:
    """Run two DBOS processes over a new database for a block."""
    url = embedded.fresh_database(servers, DATABASE)
    check_durability(url)
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    program = (sys.executable, "-m", "tests.benchmarks.peer_process")
    specs = [ChildSpec(name=f"dbos-{number}", argv=(*program, f"bench-{number}")) for number in range(WORKERS)]
    database = sa.create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with supervised(specs, {"PEER_DATABASE_URL": plain}, logs):
            _await_workers(database)
            client = DBOSClient(system_database_url=plain)
            try:
                yield Dbos(client, database)
            finally:
                client.destroy()
    finally:
        database.dispose()


def _await_workers(database: sa.Engine) -> None:
    """Wait until the queue is there, then as long as a process may need to begin listening to it."""
    until = time.monotonic() + READY_SECONDS
    while not _has_queue(database):
        if time.monotonic() > until:
            raise RuntimeError(f"DBOS has not begun after {READY_SECONDS:g} s")
        time.sleep(0.1)
    time.sleep(3.0)


def _has_queue(database: sa.Engine) -> bool:
    with database.connect() as connection, contextlib.suppress(sa.exc.ProgrammingError):
        found = connection.execute(sa.text("SELECT count(*) FROM dbos.queues WHERE name = :name"), {"name": QUEUE})
        return bool(found.scalar())
    return False
