"""Connections and transactions. READ COMMITTED, short, one at a time for each thread."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import orjson
import psycopg2.extensions
import psycopg2.extras
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from orchestrator.errors import StoreUnavailable
from orchestrator.store.apart import Apart
from sequences.json_values import json_bytes

_RETRYABLE = frozenset({"40001", "40P01", "55P03"})
_UNAVAILABLE_CLASSES = ("08", "53", "57P")
_TRIES = 5

T = TypeVar("T")


def to_json(value: Any) -> str:
    """Write a value as JSON text for a `json` column."""
    return json_bytes(value).decode()


class Transaction:
    """One open transaction: what every function of the store takes first.

    Args:
        apart: What is stored apart of the rows it belongs to.
    """

    apart: Apart = Apart()

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        raw = connection.connection.dbapi_connection
        if not isinstance(raw, psycopg2.extensions.connection):
            raise TypeError("the store needs psycopg2")
        self.cursor: Any = raw.cursor()

    def now(self) -> datetime:
        """Read the database's clock, as an aware UTC time."""
        self.cursor.execute("SELECT clock_timestamp()")
        moment: datetime = self.row()[0]
        return moment

    def row(self) -> tuple[Any, ...]:
        """Take the one row that the last statement must have given."""
        row: tuple[Any, ...] | None = self.cursor.fetchone()
        if row is None:
            raise LookupError("the statement gave no row")
        return row

    def query(self, statement: str, parameters: Sequence[Any] | dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement and take all its rows."""
        self.cursor.execute(statement, parameters)
        rows: list[tuple[Any, ...]] = self.cursor.fetchall()
        return rows

    def execute(self, statement: str, parameters: Sequence[Any] | dict[str, Any] | None = None) -> int:
        """Run one statement; returns the number of rows it touched."""
        self.cursor.execute(statement, parameters)
        return int(self.cursor.rowcount)

    def values(self, template: str, rows: Sequence[Sequence[Any]]) -> str:
        """Write rows as the text of a VALUES list, quoted by the driver."""
        return ",".join([self.cursor.mogrify(template, row).decode() for row in rows])


_TransactionT = TypeVar("_TransactionT", bound=Transaction)


class Store:
    """PostgreSQL, reached through a pool of connections.

    Args:
        url: SQLAlchemy URL of the database.
        pool_size: Connections kept open: 1 in a worker process, 5 to 10 in services.
        overflow: Further connections opened under load.
    """

    def __init__(self, url: str, *, pool_size: int = 1, overflow: int = 0) -> None:
        self.url = url
        self.engine: Engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg2"),
            pool_size=pool_size,
            max_overflow=overflow,
            pool_timeout=5,
            pool_pre_ping=False,
            pool_recycle=1800,
            isolation_level="READ COMMITTED",
            json_serializer=to_json,
            json_deserializer=orjson.loads,
            connect_args={
                "connect_timeout": 5,
                "keepalives_idle": 15,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 15000,
                "application_name": "orchestrator",
                "options": "-c statement_timeout=15s -c lock_timeout=3s -c idle_in_transaction_session_timeout=15s"
                " -c timezone=UTC",
            },
        )
        event.listen(self.engine, "connect", _prepare_connection)

    @contextmanager
    def transaction(self, *, is_losable: bool = False) -> Iterator[Transaction]:
        """Open a transaction; it commits at the end of the block and rolls back on an error.

        Args:
            is_losable: The writes may be lost in a crash of the database (claims, heartbeats): commit without waiting
                for the disk.

        Raises:
            StoreUnavailable: PostgreSQL cannot be reached, or was lost on the way. Whether a commit that was under
                way took effect is then unknown.
        """
        with self.opened(Transaction, is_losable=is_losable) as tx:
            yield tx

    @contextmanager
    def opened(self, kind: type[_TransactionT], *, is_losable: bool) -> Iterator[_TransactionT]:
        """Open a transaction of a kind; see `transaction`."""
        try:
            with self.engine.connect() as connection, connection.begin():
                tx = kind(connection)
                if is_losable:
                    tx.execute("SET LOCAL synchronous_commit = off")
                yield tx
        except (DBAPIError, PoolTimeout, psycopg2.Error) as error:
            if is_unavailable(error):
                raise StoreUnavailable(f"PostgreSQL did not answer: {first_line(error)}") from error
            raise

    def close(self) -> None:
        """Close the pool."""
        self.engine.dispose()

    def forget_inherited(self) -> None:
        """Drop connections that a parent process opened, without closing them: call first thing after a fork."""
        self.engine.dispose(close=False)


def _prepare_connection(connection: Any, _record: Any) -> None:
    psycopg2.extras.register_uuid(conn_or_curs=connection)  # type: ignore[no-untyped-call]
    psycopg2.extras.register_default_json(connection, loads=orjson.loads)
    psycopg2.extras.register_default_jsonb(connection, loads=orjson.loads)


def sqlstate(error: BaseException) -> str | None:
    """Give PostgreSQL's code of an error, None if it has none."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "pgcode", None)


def is_retryable(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed when tried again: deadlock, serialization, lock time-out."""
    return sqlstate(error) in _RETRYABLE


def patiently(write: Callable[[], T]) -> T:
    """Repeat a write that lost a deadlock or a lock time-out to another one."""
    for attempt in range(_TRIES):
        try:
            return write()
        except (DBAPIError, psycopg2.Error) as error:
            if not is_retryable(error) or attempt == _TRIES - 1:
                raise
            time.sleep(0.01 * 2**attempt)
    raise AssertionError("unreachable")


def is_unavailable(error: BaseException) -> bool:
    """Tell whether an error means that the database cannot be reached or is going away."""
    code = sqlstate(error)
    if code is not None:
        return code.startswith(_UNAVAILABLE_CLASSES)
    if isinstance(error, PoolTimeout | OperationalError | InterfaceError):
        return True
    # A connection cut in the middle of an answer has no code, and is a plain DatabaseError.
    cause = error.orig if isinstance(error, DBAPIError) else error
    return type(cause) in {psycopg2.DatabaseError, psycopg2.OperationalError, psycopg2.InterfaceError}


def first_line(error: BaseException) -> str:
    """Give the first line of an error's text."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
