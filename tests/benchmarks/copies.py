"""Fills a database with instances by copying the rows of one that the engine itself has brought to where it is.

A million instances cannot be started one by one within a benchmark. Each copy has the rows of its template, of whatever
tables they are in (`INSERT ... SELECT`, in transactions of some thousand instances); only ids and moments differ. So
the copies stay realistic when the tables change.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg2

from orchestrator.embedded import without_driver

PORTION = 20_000
"""Instances of one transaction."""

DUE = frozenset({"due_at", "wake_at"})
"""Columns that say when a sleeping instance goes on."""

OWNERS = {"instances": "id"}
OWNER = "instance_id"
"""The column that names the instance of a row: `id` in `instances`, this one in every other table."""


class Copier:
    """Copies instances of one database. A table `copied` keeps the ids of the copies and the moments they wait for."""

    def __init__(self, url: str) -> None:
        self._url = without_driver(url)
        with self._transaction() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS copied (id uuid PRIMARY KEY, kind text, due_at timestamptz)")
            self._tables = _tables_of_instances(cursor)

    def copy(self, template: UUID, count: int, *, kind: str, first_in: float = 0.0, every: float = 0.0) -> None:
        """Make copies of an instance.

        Args:
            template: The instance; it must not be moving.
            count: How many copies are made.
            kind: What they are called in `copied`.
            first_in: Seconds from now until the first copy is due; for a template that sleeps.
            every: Seconds from one copy that is due to the next.
        """
        [(now,)] = self.query("SELECT clock_timestamp()")
        for begin in range(0, count, PORTION):
            with self._transaction() as cursor:
                cursor.execute("CREATE TEMPORARY TABLE fresh (id uuid, due_at timestamptz) ON COMMIT DROP")
                cursor.execute(
                    "INSERT INTO fresh SELECT gen_random_uuid(), %s + (%s + n * %s) * interval '1 second'"
                    " FROM generate_series(%s, %s) AS n",
                    (now, first_in, every, begin, min(begin + PORTION, count) - 1),
                )
                cursor.execute("INSERT INTO copied SELECT id, %s, due_at FROM fresh", (kind,))
                for table, columns in self._tables.items():
                    cursor.execute(_copying(table, columns), (str(template),))

    def size(self) -> int:
        """Give the bytes of the database."""
        return int(self.query("SELECT pg_database_size(current_database())")[0][0])

    def settle(self) -> None:
        """Do now what PostgreSQL would do in the background of the measurement that follows."""
        with contextlib.closing(psycopg2.connect(self._url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("VACUUM (ANALYZE)")
                with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute("CHECKPOINT")

    def query(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with self._transaction() as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        with contextlib.closing(psycopg2.connect(self._url)) as connection, connection, connection.cursor() as cursor:
            yield cursor


def _tables_of_instances(cursor: Any) -> dict[str, list[tuple[str, str]]]:
    """Give the columns (name, type) of every table whose rows belong to an instance; partitions are in their whole."""
    cursor.execute(
        "SELECT c.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND a.attgenerated = '' AND a.attidentity <> 'a' ORDER BY c.relname, a.attnum"
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in cursor.fetchall():
        found.setdefault(table, []).append((column, kind))
    return {
        table: columns
        for table, columns in found.items()
        if any(column == OWNERS.get(table, OWNER) for column, _ in columns)
    }


def _copying(table: str, columns: list[tuple[str, str]]) -> str:
    owner = OWNERS.get(table, OWNER)
    names = ", ".join(f'"{column}"' for column, _ in columns)
    values = ", ".join(_value(column, kind, owner) for column, kind in columns)
    return f'INSERT INTO "{table}" ({names}) SELECT {values} FROM "{table}" AS kept, fresh WHERE kept."{owner}" = %s'


def _value(column: str, kind: str, owner: str) -> str:
    if column == owner:
        return "fresh.id"
    if column == "id" and kind == "uuid":
        return "gen_random_uuid()"
    if column in DUE:
        return f'CASE WHEN kept."{column}" IS NOT NULL THEN fresh.due_at END'
    return f'kept."{column}"'
