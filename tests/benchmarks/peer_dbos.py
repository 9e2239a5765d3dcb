"""The same works on DBOS: two processes that listen to one queue, on the same PostgreSQL.

Workflows are enqueued by DBOS's own client, many in one transaction where that is faster. Neither its telemetry nor
its Conductor is used, so it talks to nothing but PostgreSQL.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient
from sqlalchemy.engine import make_url

from orchestrator import embedded
from orchestrator.dev import ChildSpec
from orchestrator.embedded import Servers
from tests.benchmarks.machine import check_durability
from tests.benchmarks.ours import READY_SECONDS, WORKERS, supervised
from tests.benchmarks.peer_dbos_process import QUEUE
from tests.benchmarks.rival import DONE, FAILED, Rival
from tests.benchmarks.works import Chain

NAME = "dbos"
DATABASE = "bench_dbos"


class Dbos(Rival):
    """DBOS as a `Bench`; made by `running`."""

    engine = NAME

    def __init__(self, client: DBOSClient, database: sa.Engine) -> None:
        self._client = client
        self._database = database

    def start(self, workflow: str, count: int, argument: int) -> list[str]:
        """Enqueue workflows in one transaction."""
        with self._database.begin() as connection:
            return [
                self._client.enqueue_in_transaction(
                    connection, {"workflow_name": workflow, "queue_name": QUEUE}, argument
                ).get_workflow_id()
                for _ in range(count)
            ]

    def states(self, ids: Sequence[str]) -> dict[str, int]:
        """Count the workflows in each status."""
        rows = self._query(
            "SELECT status, count(*) FROM dbos.workflow_status WHERE workflow_uuid = ANY(:ids) GROUP BY status", ids
        )
        return {{"SUCCESS": DONE, "ERROR": FAILED}.get(row[0], row[0]): row[1] for row in rows}

    def recorded(self, ids: Sequence[str]) -> int:
        """Count the steps that have left a row."""
        rows = self._query("SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ANY(:ids)", ids)
        return int(rows[0][0])

    def facts(self, id_: str) -> Chain:
        """Read when a workflow was enqueued, and what it returned."""
        rows = self._query("SELECT created_at FROM dbos.workflow_status WHERE workflow_uuid = ANY(:ids)", [id_])
        return Chain(accepted=rows[0][0] / 1000, ended=self._client.retrieve_workflow(id_).get_result())

    def _query(self, statement: str, ids: Sequence[str]) -> Sequence[Any]:
        with self._database.connect() as connection:
            return connection.execute(sa.text(statement), {"ids": list(ids)}).all()


@contextlib.contextmanager
def running(servers: Servers, logs: Path, _folder: Path) -> Iterator[Dbos]:
    """Run two DBOS processes over a new database for a block."""
    url = embedded.fresh_database(servers, DATABASE)
    check_durability(url)
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    program = (sys.executable, "-m", "tests.benchmarks.peer_dbos_process")
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


def versions(_folder: Path) -> dict[str, str]:
    """Name what is installed."""
    return {"dbos": version("dbos")}
