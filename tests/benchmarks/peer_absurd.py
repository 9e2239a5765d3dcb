"""The same works on Absurd: two processes that claim from its queues, on the same PostgreSQL.

Tasks are spawned by the function of its schema that its SDK calls, many in one transaction.
"""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg2

from orchestrator import embedded
from orchestrator.dev import ChildSpec
from orchestrator.embedded import Servers, without_driver
from tests.benchmarks import installing
from tests.benchmarks.machine import check_durability
from tests.benchmarks.ours import WORKERS, supervised
from tests.benchmarks.peer_absurd_process import QUEUES
from tests.benchmarks.rival import DONE, FAILED, Rival
from tests.benchmarks.works import Chain

NAME = "absurd"
DATABASE = "bench_absurd"
PACKAGES = ("absurd-sdk", "absurdctl")
SCHEMA = "import absurdctl; print(absurdctl.BUNDLED_SCHEMA_SQL)"
PROGRAM = Path(__file__).with_name("peer_absurd_process.py")


class Absurd(Rival):
    """Absurd as a `Bench`; made by `running`."""

    engine = NAME

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._queue = ""

    def start(self, workflow: str, count: int, argument: int) -> list[str]:
        """Spawn tasks in one transaction."""
        self._queue = QUEUES[workflow]
        return [
            str(row[0])
            for row in self._query(
                "SELECT (absurd.spawn_task(%s, %s, %s, '{}')).task_id FROM generate_series(1, %s)",
                (self._queue, workflow, str(argument), count),
            )
        ]

    def states(self, ids: Sequence[str]) -> dict[str, int]:
        """Count the tasks in each state."""
        rows = self._query(
            f"SELECT state, count(*) FROM absurd.t_{self._queue} WHERE task_id = ANY(%s::uuid[]) GROUP BY state",
            (list(ids),),
        )
        return {{"completed": DONE, "failed": FAILED, "cancelled": FAILED}.get(state, state): n for state, n in rows}

    def recorded(self, ids: Sequence[str]) -> int:
        """Count the checkpoints of tasks."""
        statement = f"SELECT count(*) FROM absurd.c_{self._queue} WHERE task_id = ANY(%s::uuid[])"
        return int(self._query(statement, (list(ids),))[0][0])

    def facts(self, id_: str) -> Chain:
        """Read when a task was enqueued, and what it returned."""
        statement = f"SELECT enqueue_at, completed_payload FROM absurd.t_{self._queue} WHERE task_id = %s"
        [(accepted, ended)] = self._query(statement, (id_,))
        return Chain(accepted=accepted.timestamp(), ended=ended)

    def _query(self, statement: str, parameters: Any) -> list[Any]:
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall())


@contextlib.contextmanager
def running(servers: Servers, logs: Path, folder: Path) -> Iterator[Absurd]:
    """Run two Absurd processes over a new database for a block."""
    python = installing.environment(folder / NAME, PACKAGES)
    url = embedded.fresh_database(servers, DATABASE)
    check_durability(url)
    plain = without_driver(url)
    schema = subprocess.run([str(python), "-c", SCHEMA], check=True, capture_output=True, text=True).stdout
    with contextlib.closing(psycopg2.connect(plain)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute(schema)
            for queue in QUEUES.values():
                cursor.execute("SELECT absurd.create_queue(%s)", (queue,))
        specs = [
            ChildSpec(name=f"absurd-{number}", argv=(str(python), str(PROGRAM), f"bench-{number}"))
            for number in range(WORKERS)
        ]
        with supervised(specs, {"PEER_DATABASE_URL": plain}, logs):
            yield Absurd(connection)


def versions(folder: Path) -> dict[str, str]:
    """Name what is installed."""
    return installing.versions_of(folder / NAME / "bin" / "python", PACKAGES)
