"""Connections and transactions. READ COMMITTED, short, one at a time for each thread.

A round trip to the server costs about as much as a small statement. So a transaction begins with its first statement,
in the same message, and what it writes without asking for an answer (`later`) goes out with its commit.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from orchestrator.encryption import Vault
from orchestrator.errors import ConfigurationError, StoreUnavailable
from orchestrator.store.apart import Apart
from orchestrator.store.pool import UNKNOWN_SESSION, Connection, Pool, Pooler
from orchestrator.store.prepared import Form, Prepared, arrays_of, literals_of, texts_of
from orchestrator.store.row_security import RowSecurity
from orchestrator.store.sealing import (
    Parameters,
    looks_sealed,
    opened_json,
    opened_text,
    reader,
    sealed_parameters,
    sealed_row,
    unlocked,
)
from sequences.json_values import json_bytes

_RETRYABLE = frozenset({"40001", "40P01", "55P03"})
_UNAVAILABLE_CLASSES = ("08", "53", "57P")
_TIMED_OUT = "57014"
_READ_ONLY = "25006"
"""What a server answers that takes no writes: it follows another one by now, or is told so."""
_SESSION_CHANGED = frozenset({"26000", "42P05"})
"""What we have prepared is not there, or another has prepared it: a pooler has given the connection another session."""
_ROLE_REFUSED = frozenset({"22023", "42501"})
_TRIES = 5

T = TypeVar("T")

_BY_INDEX = b"SET LOCAL enable_seqscan = off"
"""A plan that is kept must not have been made for a table that was small then: it goes by an index, as there is one."""


def to_json(value: Any) -> str:
    """Write a value as JSON text for a `json` column."""
    return "null" if value is None else json_bytes(value).decode()


@dataclass(frozen=True, slots=True)
class Reader:
    """A transaction that only reads.

    Args:
        tenant: Whose things are read.
        role: What is taken to read them, and shows nothing else; None for the account itself.
    """

    tenant: str | None = None
    role: str | None = None


class Transaction:
    """One open transaction: what every function of the store takes first.

    Args:
        reader: Lets it only read; None for one that may write.
        apart: What is stored apart of the rows it belongs to.
        vault: Seals what is private; None leaves it in the clear.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        is_losable: bool = False,
        is_single: bool = False,
        reader: Reader | None = None,
        apart: Apart | None = None,
        vault: Vault | None = None,
    ) -> None:
        self.apart = apart or Apart()
        self.vault = vault
        self.cursor: Any = connection.cursor()
        self.reader = reader
        self.has_answered = False
        self._connection = connection
        self._settings = self._settings_of(reader, is_losable=is_losable)
        self._is_single = is_single and connection.keeps_session
        self._waiting = self._beginning()
        self._length_of_beginning = len(self._waiting)
        self._has_begun = False
        self._goes_by_index = False
        self._preparing: set[str] = set()

    def _settings_of(self, reader: Reader | None, *, is_losable: bool) -> list[bytes]:
        if is_losable:
            return [b"SET LOCAL synchronous_commit = off"]
        if reader is None:
            return []
        if reader.role is None:
            return [b"SET LOCAL transaction_read_only = on"]
        take = f"SET LOCAL orchestrator.tenant = %s; SET LOCAL ROLE {reader.role}"
        return [b"SET LOCAL transaction_read_only = on", bytes(self.cursor.mogrify(take, (reader.tenant,)))]

    def _beginning(self) -> list[bytes]:
        return [*self._settings] if self._is_single else [b"; ".join([self._connection.begin, *self._settings])]

    def now(self) -> datetime:
        """Read the database's clock, as an aware UTC time."""
        moment: datetime = self.query("SELECT clock_timestamp()")[0][0]
        return moment

    def query(self, statement: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """Run one statement and take all its rows."""
        self._send(self._bound(statement, parameters))
        rows: list[tuple[Any, ...]] = self.cursor.fetchall()
        return rows

    def execute(self, statement: str, parameters: Parameters = None) -> int:
        """Run one statement; returns the number of rows it touched."""
        self._send(self._bound(statement, parameters))
        return int(self.cursor.rowcount)

    def later(self, statement: str, parameters: Parameters = None) -> None:
        """Let a statement be sent with the next one, or with the commit; its errors come from there."""
        self._waiting.append(self._bound(statement, parameters))

    def _bound(self, statement: str, parameters: Parameters) -> bytes:
        if self.vault is not None:
            parameters = sealed_parameters(parameters, self.vault)
        text: bytes = self.cursor.mogrify(statement, parameters)
        return text

    def put(self, statement: Prepared, rows: Sequence[Sequence[Any]]) -> None:
        """Let a statement write rows, sent as `later` does; no rows, no statement."""
        rows = self._sealed(rows)
        if len(rows) == 1:
            self._waiting.append(self._execution(statement.for_one, rows[0]))
        elif rows:
            self._waiting.append(self._execution(statement.for_many, arrays_of(rows)))

    def tell(self, form: Form, values: Sequence[Any]) -> None:
        """Let a statement of the store's be sent as `later` does."""
        [values] = self._sealed([values])
        self._waiting.append(self._execution(form, values))

    def ask(self, form: Form, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement of the store's and take all its rows."""
        self._send(self._execution(form, values))
        rows: list[tuple[Any, ...]] = self.cursor.fetchall()
        return rows

    @property
    def may_end_at_once(self) -> bool:
        """Tell whether `end_with` may be called: nothing was sent, and the session begins as all of ours do."""
        return not self._has_begun and self._connection.keeps_session and self.reader is None

    def end_with(self, form: Form, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Send what waits and one more statement, take its rows, and be committed.

        Statements that come in one message are one transaction by themselves: it needs no beginning and no end.
        """
        self._waiting[: self._length_of_beginning] = self._settings
        rows = self.ask(form, values)
        self._has_begun = False
        return rows

    def _execution(self, form: Form, values: Sequence[Any]) -> bytes:
        """Write the execution of a statement; the server learns it first if this connection has not used it before."""
        text: bytes
        # A plan that was kept for a role would be the one for the tenant it was made for, who may have next to nothing.
        is_for_one = self.reader is not None and self.reader.role is not None and not form.suits_all
        if not self._goes_by_index:
            self._goes_by_index = True
            self._waiting.append(_BY_INDEX)
        if is_for_one or not form.prepare or not self._connection.keeps_session:
            texts = enumerate(texts_of(values), 1)
            text = self.cursor.mogrify(form.whole, {str(number): each for number, each in texts})
            return text
        if form.name not in self._connection.prepared and form.name not in self._preparing:
            self._preparing.add(form.name)
            self._waiting.append(form.prepare.encode())
        if values and (literals := literals_of(values)) is not None:
            return f"{form.execute.partition('(')[0]}({literals})".encode()
        text = self.cursor.mogrify(form.execute, texts_of(values))
        return text

    def values(self, template: str, rows: Sequence[Sequence[Any]]) -> str:
        """Write rows as the text of a VALUES list, quoted by the driver."""
        return ",".join([self.cursor.mogrify(template, row).decode() for row in self._sealed(rows)])

    def _sealed(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        return rows if self.vault is None else [sealed_row(row, self.vault) for row in rows]

    def unlocked(self, value: Any, owner: UUID) -> Any:
        """Give a value of a `json` column that may be bound to an instance."""
        return unlocked(value, owner, self.vault)

    def opened_json(self, text: str | None, owner: str) -> str | None:
        """Give the JSON text that a `json` column of an instance means, from the text it holds."""
        return opened_json(text, UUID(owner), self.vault) if text is not None and looks_sealed(text) else text

    def opened_text(self, text: str | None) -> str | None:
        """Give the text of a `text` column that may be sealed."""
        return opened_text(text, self.vault)

    def commit(self) -> None:
        """Send what waits, and the commit. A transaction that has done nothing is not even begun."""
        is_more_to_send = len(self._waiting) > (0 if self._has_begun else self._length_of_beginning)
        if is_more_to_send or (self._has_begun and not self._is_single):
            self._send(b"COMMIT")

    def roll_back(self) -> None:
        """Undo everything; a connection that is lost on the way has undone it."""
        if not self._has_begun:
            return
        connection = self._connection
        if not connection.closed:
            is_open = connection.get_transaction_status() != TRANSACTION_STATUS_IDLE
            with suppress(psycopg2.Error):
                if is_open:
                    self.cursor.execute("ROLLBACK")
                if connection.keeps_session:
                    self.cursor.execute("DEALLOCATE ALL")
        # What a message had prepared before it failed is not known, so nothing is kept.
        connection.prepared.clear()

    def _send(self, statement: bytes) -> None:
        self._waiting.append(statement)
        message = b";\n".join(self._waiting)
        self._waiting.clear()
        self._has_begun = True
        self.cursor.execute(message)
        self.has_answered = True
        if self._is_single:
            self._has_begun = self._goes_by_index = False
            self._waiting = self._beginning()
        if self._preparing:
            self._connection.prepared |= self._preparing
            self._preparing.clear()


_TransactionT = TypeVar("_TransactionT", bound=Transaction)


class Store:
    """PostgreSQL, reached through a pool of connections.

    Args:
        url: URL of the database, as libpq or SQLAlchemy know it.
        pool_size: Connections kept open: 1 in a worker process, 5 to 10 in services.
        overflow: Further connections opened under load.
        pooler: What stands between us and the server.
        vault: Seals what is private; None leaves it in the clear.
        row_security: What shows to those who read for a tenant no other's rows.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 1,
        overflow: int = 0,
        pooler: Pooler = Pooler.SESSION,
        vault: Vault | None = None,
        row_security: RowSecurity | None = None,
    ) -> None:
        self.url = url
        self.vault = vault
        self.row_security = row_security or RowSecurity()
        self._pool = Pool(url, size=pool_size, overflow=overflow, pooler=pooler, loads=reader(vault))

    def try_out(self) -> None:
        """Open a connection, so that a wrong setting ends the start; a server that is down may come up later.

        Raises:
            ConfigurationError: A pooler stands between us and the server, and is not set.
        """
        with suppress(StoreUnavailable), self.transaction() as tx:
            tx.now()

    def transaction(self, *, is_losable: bool = False, is_single: bool = False) -> AbstractContextManager[Transaction]:
        """Open a transaction; it commits at the end of the block and rolls back on an error.

        Args:
            is_losable: The writes may be lost in a crash of the database (claims, heartbeats): commit without waiting
                for the disk.
            is_single: It is one message, which needs no beginning and no end. Of several, each is a transaction
                of this kind.

        Raises:
            StoreUnavailable: PostgreSQL cannot be reached, or was lost on the way. Whether a commit that was under
                way took effect is then unknown.
        """
        return self.opened(Transaction, is_losable=is_losable, is_single=is_single)

    def reading(self, tenant: str | None, *, is_single: bool = False) -> AbstractContextManager[Transaction]:
        """Open a transaction that only reads; see `transaction`.

        Args:
            tenant: Whose things are read: the server shows no others in it. None for those of all.

        Raises:
            StoreUnavailable: Also if row-level security is required, and cannot be had.
        """
        return self.opened(Transaction, reader=self.reader(tenant), is_single=is_single)

    def try_out_row_security(self) -> None:
        """Look whether the role can be taken, so that its lack is told at the start.

        Raises:
            ConfigurationError: It is required, and cannot.
        """
        with suppress(StoreUnavailable):
            self.row_security.role(self.transaction)
        self.row_security.check()

    def reader(self, tenant: str | None) -> Reader:
        """Say how a transaction reads for a tenant, or for all; raises as `reading` does."""
        return Reader() if tenant is None else Reader(tenant, self.row_security.role(self.transaction))

    @contextmanager
    def opened(
        self,
        kind: type[_TransactionT],
        *,
        is_losable: bool = False,
        is_single: bool = False,
        reader: Reader | None = None,
        apart: Apart | None = None,
    ) -> Iterator[_TransactionT]:
        """Open a transaction of a kind; see `transaction` and `reading`."""
        tx: _TransactionT | None = None
        try:
            connection = self._pool.take()
            try:
                tx = kind(
                    connection,
                    is_losable=is_losable,
                    is_single=is_single,
                    reader=reader,
                    apart=apart,
                    vault=self.vault,
                )
                try:
                    yield tx
                    tx.commit()
                except BaseException as error:
                    tx.roll_back()
                    if _is_elsewhere(tx, error):
                        connection.close()
                    raise
            finally:
                self._pool.give(connection)
        except psycopg2.Error as error:
            if is_unavailable(error):
                raise StoreUnavailable(f"PostgreSQL did not answer: {first_line(error)}") from error
            if tx is not None and _is_elsewhere(tx, error):
                raise StoreUnavailable(f"PostgreSQL takes no writes here: {first_line(error)}") from error
            if sqlstate(error) in _SESSION_CHANGED:
                raise ConfigurationError(UNKNOWN_SESSION) from error
            if tx is not None and _is_role_refused(tx, error):
                self.row_security.doubt(first_line(error))
                raise StoreUnavailable(f"PostgreSQL refused a role: {first_line(error)}") from error
            raise

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def forget_inherited(self) -> None:
        """Drop connections that a parent process opened, without closing them: call first thing after a fork."""
        self._pool.forget()


def _is_elsewhere(tx: Transaction, error: BaseException) -> bool:
    """Tell whether a transaction was to write to a server that only reads: after a failover, the one before."""
    return tx.reader is None and sqlstate(error) == _READ_ONLY


def _is_role_refused(tx: Transaction, error: BaseException) -> bool:
    """Tell whether a transaction did not come beyond its role: it is gone, or may not be taken or not read."""
    has_role = tx.reader is not None and tx.reader.role is not None
    return has_role and not tx.has_answered and sqlstate(error) in _ROLE_REFUSED


def sqlstate(error: BaseException) -> str | None:
    """Give PostgreSQL's code of an error, None if it has none."""
    return getattr(error, "pgcode", None)


def is_retryable(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed when tried again: deadlock, serialization, lock time-out."""
    return sqlstate(error) in _RETRYABLE


def is_passing(error: BaseException) -> bool:
    """Tell whether an error is one of the moment: rows that others hold for long, or a server that takes long."""
    return is_retryable(error) or sqlstate(error) == _TIMED_OUT


def patiently(write: Callable[[], T]) -> T:
    """Repeat a write that lost a deadlock or a lock time-out to another one."""
    for attempt in range(_TRIES):
        try:
            return write()
        except psycopg2.Error as error:
            if not is_retryable(error) or attempt == _TRIES - 1:
                raise
            time.sleep(0.01 * 2**attempt)
    raise AssertionError("unreachable")


def is_unavailable(error: BaseException) -> bool:
    """Tell whether an error means that the database cannot be reached or is going away."""
    code = sqlstate(error)
    if code is not None:
        return code.startswith(_UNAVAILABLE_CLASSES)
    # A connection cut in the middle of an answer has no code, and is a plain DatabaseError.
    return type(error) in {psycopg2.DatabaseError, psycopg2.OperationalError, psycopg2.InterfaceError}


def first_line(error: BaseException) -> str:
    """Give the first line of an error's text."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
