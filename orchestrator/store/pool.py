"""The connections of one process: opened when they are needed, and kept for the next transaction."""

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any

import orjson
import psycopg2.extensions
import psycopg2.extras

from orchestrator.errors import ConfigurationError, StoreUnavailable

WAIT_SECONDS = 5.0
"""How long a transaction waits for a connection that another one holds."""
MAX_AGE_SECONDS = 1800.0
"""Older connections are not used again: what a server keeps for one only grows."""
SILENCE_SECONDS = 45.0
"""How long a transaction may last before its server counts as silent: three times its longest statement.

A server that stands still, and a network that swallows an answer, tell nobody: the kernel of the other side goes on
acknowledging, so neither keep-alives nor `tcp_user_timeout` notice, and the server's own time-outs stand still with it.
"""

_OPTIONS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15000,
    "application_name": "orchestrator",
}
_LIMITS = {
    "statement_timeout": "15s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "15s",
    "timezone": "UTC",
}
_SESSION = {
    "options": " ".join(f"-c {name}={value}" for name, value in _LIMITS.items())
    + " -c plan_cache_mode=force_generic_plan"
}
_BEGIN = "; ".join(["BEGIN", *(f"SET LOCAL {name} = '{value}'" for name, value in _LIMITS.items())]).encode()

UNKNOWN_SESSION = (
    "a pooler stands between this process and PostgreSQL and does not keep our session: set "
    "DATABASE_POOLER=transaction, or connect to PostgreSQL itself"
)


class Pooler(StrEnum):
    """What stands between us and PostgreSQL."""

    SESSION = "session"
    """Nothing: a connection is one session of the server, as long as it is open."""
    TRANSACTION = "transaction"
    """PgBouncer in transaction mode, or one like it: each transaction may reach another session of the server."""


class Connection(psycopg2.extensions.connection):
    """A connection that begins no transaction by itself.

    Args:
        begin: Begins a transaction.
        keeps_session: The server keeps what we set and prepare from one transaction to the next.
        prepared: Names of the statements that the server keeps for it.
        generation: See `Pool`.
    """

    begin: bytes
    keeps_session: bool
    prepared: set[str]
    generation: int
    opened_at: float

    @property
    def is_idle(self) -> bool:
        """Tell whether it is open and in no transaction."""
        return not self.closed and self.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE


class Pool:
    """Lends connections. Safe to use from several threads.

    When one connection turns out to be lost, the server has probably gone, so all that were opened before are suspected
    and closed: they are of an old generation.

    Args:
        url: A URL of libpq or of SQLAlchemy.
        size: Connections kept open.
        overflow: Further connections opened under load.
        pooler: What stands between us and the server.
        loads: Decodes the text of a `json` column.
        silence: Seconds after which a connection that is still lent is cut: whoever waits on it is told.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int,
        overflow: int,
        pooler: Pooler = Pooler.SESSION,
        loads: Callable[[str], Any] = orjson.loads,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self._silence = silence
        self._dsn = without_driver(url)
        self._loads = loads
        self._keeps_session = pooler is Pooler.SESSION
        self._size = size
        self._most = size + overflow
        self.forget()

    def forget(self) -> None:
        """Drop all connections without closing them: they belong to the process that has forked this one."""
        self._idle: list[Connection] = []
        self._lent: dict[Connection, float] = {}
        self._watch: threading.Thread | None = None
        self._is_closed = threading.Event()
        self._generation = 0
        self._free = threading.BoundedSemaphore(self._most)
        self._lock = threading.Lock()

    def take(self) -> Connection:
        """Lend a connection.

        Raises:
            StoreUnavailable: All are in use, and none has become free in `WAIT_SECONDS`.
            psycopg2.OperationalError: None can be opened.
            ConfigurationError: A pooler stands between us and the server, and is not set.
        """
        if not self._free.acquire(timeout=WAIT_SECONDS):
            raise StoreUnavailable(f"all {self._most} connections to PostgreSQL are in use")
        try:
            connection = self._kept() or self._opened()
        except BaseException:
            self._free.release()
            raise
        with self._lock:
            self._lent[connection] = time.monotonic()
            if self._watch is None and not self._is_closed.is_set():
                self._watch = threading.Thread(
                    target=_cut_silent, args=(weakref.ref(self), self._is_closed, self._silence), daemon=True
                )
                self._watch.start()
        return connection

    def give(self, connection: Connection) -> None:
        """Take a connection back."""
        with self._lock:
            del self._lent[connection]
            is_kept = self._is_usable(connection) and len(self._idle) < self._size
            if is_kept:
                self._idle.append(connection)
            elif connection.closed:
                self._generation += connection.generation == self._generation
        self._free.release()
        if not is_kept:
            connection.close()

    def close(self) -> None:
        """Close the connections that nobody uses, and the others when they are given back."""
        self._is_closed.set()
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def cut_silent(self) -> None:
        """Cut the connections that have been lent for too long."""
        with self._lock:  # so that none is given back, and lent anew, in between
            latest = time.monotonic() - self._silence
            for connection, since in self._lent.items():
                if since < latest:
                    _cut(connection)

    def _kept(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
                if self._is_usable(connection):
                    return connection
            connection.close()

    def _is_usable(self, connection: Connection) -> bool:
        is_young = time.monotonic() - connection.opened_at < MAX_AGE_SECONDS
        return is_young and connection.generation == self._generation and connection.is_idle

    def _opened(self) -> Connection:
        generation = self._generation
        options = _OPTIONS | _SESSION if self._keeps_session else _OPTIONS
        try:
            connection: Connection = psycopg2.connect(self._dsn, connection_factory=Connection, **options)
        except psycopg2.OperationalError as error:
            if "unsupported startup parameter" in str(error):  # PgBouncer, of our options
                raise ConfigurationError(UNKNOWN_SESSION) from error
            raise
        connection.autocommit = True
        if self._keeps_session:
            _check_options(connection)
        connection.begin = b"BEGIN" if self._keeps_session else _BEGIN
        connection.keeps_session = self._keeps_session
        connection.prepared = set()
        connection.generation = generation
        connection.opened_at = time.monotonic()
        psycopg2.extras.register_uuid(conn_or_curs=connection)  # type: ignore[no-untyped-call]
        psycopg2.extras.register_default_json(connection, loads=self._loads)
        psycopg2.extras.register_default_jsonb(connection, loads=orjson.loads)
        return connection


def _cut_silent(pool: weakref.ref[Pool], is_closed: threading.Event, silence: float) -> None:
    """Look for silent connections as long as the pool is in use."""
    while not is_closed.wait(silence / 4) and (found := pool()) is not None:
        found.cut_silent()
        del found


def _cut(connection: Connection) -> None:
    """End a connection under the thread that waits for its answer."""
    with suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _check_options(connection: Connection) -> None:
    """Refuse a session without our options: PgBouncer can be told to take them and to forget them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('plan_cache_mode')")
        if cursor.fetchone() != ("force_generic_plan",):
            connection.close()
            raise ConfigurationError(UNKNOWN_SESSION)


def without_driver(url: str) -> str:
    """Give a URL of SQLAlchemy as libpq wants it.

    >>> without_driver("postgresql+psycopg2://me@db/app")
    'postgresql://me@db/app'
    """
    scheme, separator, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}"
