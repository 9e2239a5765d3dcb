"""Start, share, restart and stop the two servers; everything that others call is here."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from orchestrator.embedded import home as folders
from orchestrator.embedded import postgres, processes, redis_server
from orchestrator.embedded.home import Home, Record, Settings
from orchestrator.embedded.processes import Deadline, Launched, PortTakenError, Process, ServersError, StopSteps

START_SECONDS = 60.0
"""A first start takes about one second; recovery after a crash under load may take many."""

KEEPER_STOP: StopSteps = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where the servers are. A pid is None for a server that is down, or that is not ours (its URL was given).

    `database_url`, `redis_url` (limits) and `broker_url` are for the application. The other addresses are None when
    the server is not ours: `database_tcp_url` is the same database over 127.0.0.1, for a proxy or another user;
    `admin_url` is the superuser's; `redis_socket` is the same Redis without TCP.
    """

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    directory: Path
    log_directory: Path
    postgres_pid: int | None = None
    redis_pid: int | None = None
    owners: tuple[int, ...] = ()
    database_tcp_url: str | None = field(default=None, repr=False)
    admin_url: str | None = field(default=None, repr=False)
    redis_socket: Path | None = None
    data_directory: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point any of our commands at these servers."""
        return {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url, "BROKER_URL": self.broker_url}


def start(
    directory: Path | None = None,
    *,
    owned: bool = True,
    environment: Mapping[str, str] | None = None,
    timeout: float = START_SECONDS,
) -> Servers:
    """Start what is not running yet, attach to what is, and say where it all is.

    Args:
        directory: Where data, settings and logs live; None for `default_directory()`.
        owned: The servers end when the last owner has ended, however it ended. With False they outlive the caller and
            every owner, until `stop`.
        environment: Where DATABASE_URL, REDIS_URL and BROKER_URL are looked up; None for the process environment.
            A server whose URL is given is not started.
        timeout: Seconds.

    Raises:
        ServersError: a server cannot be found or started; the message says why and what to do.
    """
    given = _Given.read(environment)
    directory = _resolved(directory)
    if given.database_url and given.redis_url:
        return _describe(None, given, directory)
    deadline = Deadline.after(timeout)
    folders.create_directory(directory)
    with processes.locked(folders.start_lock(directory), deadline):
        session = _Session(*folders.open_home(directory))
        session.bring_up(given.kinds_to_start, deadline)
        session.register(owned=owned)
        return _describe(session, given, directory)


def stop(directory: Path | None = None, *, timeout: float = START_SECONDS) -> None:
    """End the servers of a directory, whoever owns them, and wait until they are gone; nothing runs is fine.

    PostgreSQL gets a fast shutdown, Redis writes what it holds; one that does not answer is ended by force.
    """
    directory = _resolved(directory)
    with _known_session(directory, timeout) as session:
        if session is not None:
            session.end_all()


def release(directory: Path | None = None, *, timeout: float = START_SECONDS) -> None:
    """Give up one `start` of this process; the last owner to do so ends the servers."""
    directory = _resolved(directory)
    with _known_session(directory, timeout) as session:
        if session is not None:
            session.give_up(processes.this_process())


@contextlib.contextmanager
def running(directory: Path | None = None, *, environment: Mapping[str, str] | None = None) -> Iterator[Servers]:
    """Have the servers for a block; they end after it unless another owner still uses them."""
    servers = start(directory, environment=environment)
    try:
        yield servers
    finally:
        release(servers.directory)


def status(directory: Path | None = None, *, environment: Mapping[str, str] | None = None) -> Servers | None:
    """Say what runs, without waiting and without changing anything; None if the directory was never started."""
    given = _Given.read(environment)
    directory = _resolved(directory)
    known = folders.known_home(directory)
    if known is None:
        return _describe(None, given, directory) if given.database_url and given.redis_url else None
    return _describe(_Session(*known), given, directory)


def remove(directory: Path | None = None) -> None:
    """Stop the servers and delete all their data, wherever it lies."""
    directory = _resolved(directory)
    stop(directory)
    folders.remove_folders(directory)


def restart_postgres(servers: Servers, *, immediate: bool = True, timeout: float = START_SECONDS) -> Servers:
    """Restart our PostgreSQL on the same port.

    Args:
        servers: What `start` returned.
        immediate: Drop every connection at once and recover on the way up, as after a crash; else a clean restart.
        timeout: Seconds.

    Raises:
        ServersError: it is not ours, or does not come back.
    """
    if servers.admin_url is None:
        raise ServersError("PostgreSQL was given by DATABASE_URL: only its owner can restart it")
    return _restart(servers, POSTGRES, POSTGRES.stop_at_once if immediate else POSTGRES.stop, timeout=timeout)


def restart_redis(servers: Servers, *, empty: bool = True, timeout: float = START_SECONDS) -> Servers:
    """Restart our Redis on the same port.

    Args:
        servers: What `start` returned.
        empty: Kill it and forget all it stored; else a clean restart that keeps everything.
        timeout: Seconds.

    Raises:
        ServersError: it is not ours, or does not come back.
    """
    if servers.redis_socket is None:
        raise ServersError("Redis was given by REDIS_URL: only its owner can restart it")
    steps = REDIS.stop_at_once if empty else REDIS.stop
    return _restart(servers, REDIS, steps, between=redis_server.remove_data if empty else None, timeout=timeout)


def fresh_database(servers: Servers, name: str, *, template: str | None = None) -> str:
    """Create a database, dropping one of that name first, and return its URL.

    Args:
        servers: Ours, or a given database server whose role may create databases.
        name: A plain name.
        template: A database to copy, which nobody may be connected to: migrate once, copy often.
    """
    import psycopg2  # noqa: PLC0415 - see postgres.create_database
    from psycopg2 import sql  # noqa: PLC0415

    target, source = sql.Identifier(name), sql.Identifier(template or "template1")
    connection = psycopg2.connect(without_driver(servers.database_url), connect_timeout=10)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(target))
            cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(target, source))
    finally:
        connection.close()
    return with_database(servers.database_url, name)


def with_driver(url: str) -> str:
    """Name the driver we use in a PostgreSQL URL that names none; SQLAlchemy 2.1 would choose another one.

    >>> with_driver("postgres://me@db/app")
    'postgresql+psycopg2://me@db/app'
    """
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg2://{rest}" if separator and scheme in {"postgres", "postgresql"} else url


def without_driver(url: str) -> str:
    """Return the URL as psycopg2 itself wants it.

    >>> without_driver("postgresql+psycopg2://me@db/app")
    'postgresql://me@db/app'
    """
    scheme, separator, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}"


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server.

    >>> with_database("postgresql+psycopg2://me@/app?host=%2Ftmp%2Fs", "other")
    'postgresql+psycopg2://me@/other?host=%2Ftmp%2Fs'
    """
    address, question, options = url.partition("?")
    scheme, separator, rest = address.partition("://")
    server = rest.partition("/")[0]
    return f"{scheme}{separator}{server}/{quote(name, safe='')}{question}{options}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One of the two servers, as far as starting and stopping is concerned."""

    name: Literal["postgres", "redis"]
    launch: Callable[[Home, Settings, Deadline], Launched]
    is_ready: Callable[[Home, Settings, Process], bool]
    prepare: Callable[[Home, Settings], None]
    unrecorded: Callable[[Home], Process | None]
    stop: StopSteps
    stop_at_once: StopSteps


POSTGRES = _Kind(
    name="postgres",
    launch=postgres.launch,
    is_ready=postgres.is_ready,
    prepare=postgres.create_database,
    unrecorded=postgres.unrecorded,
    stop=postgres.STOP,
    stop_at_once=postgres.STOP_AT_ONCE,
)
REDIS = _Kind(
    name="redis",
    launch=redis_server.launch,
    is_ready=redis_server.is_ready,
    prepare=lambda _home, _settings: None,
    unrecorded=redis_server.unrecorded,
    stop=redis_server.STOP,
    stop_at_once=redis_server.STOP_AT_ONCE,
)
KINDS = (REDIS, POSTGRES)
"""In the order of launching: Redis comes up while `initdb` still works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """Addresses of servers that somebody else runs."""

    database_url: str | None
    redis_url: str | None
    broker_url: str | None

    @classmethod
    def read(cls, environment: Mapping[str, str] | None) -> _Given:
        found = os.environ if environment is None else environment
        database_url, redis_url = found.get("DATABASE_URL") or None, found.get("REDIS_URL") or None
        return cls(
            database_url=None if database_url is None else with_driver(database_url),
            redis_url=redis_url,
            broker_url=found.get("BROKER_URL") or redis_url,
        )

    @property
    def kinds_to_start(self) -> tuple[_Kind, ...]:
        given = {"postgres": self.database_url, "redis": self.redis_url}
        return tuple(kind for kind in KINDS if given[kind.name] is None)


class _Session:
    """One hold of the lock: what is known, changed step by step, and written down after each step."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self.home = home
        self.settings = settings
        self.record = folders.read_record(home.directory)

    def process(self, kind: _Kind) -> Process | None:
        """Return the running server of that kind."""
        return self.record.postgres if kind is POSTGRES else self.record.redis

    def note(self, record: Record) -> None:
        """Write down what runs now."""
        self.record = record
        folders.write_record(self.home.directory, record)

    def bring_up(self, kinds: tuple[_Kind, ...], deadline: Deadline) -> None:
        """Start what is missing; if that fails, end again what was started here."""
        self._adopt_unrecorded()
        missing = tuple(kind for kind in kinds if self.process(kind) is None)
        try:
            launched = [(kind, self.launch(kind, deadline)) for kind in missing]
            for kind, server in reversed(launched):
                self.await_ready(kind, server, deadline, may_move=True)
                kind.prepare(self.home, self.settings)
        except BaseException:
            for kind in missing:
                self.end(kind, kind.stop_at_once)
            raise

    def launch(self, kind: _Kind, deadline: Deadline) -> Launched:
        """Launch a server and record it."""
        launched = kind.launch(self.home, self.settings, deadline)
        changed = replace(self.record, postgres=launched.process) if kind is POSTGRES else None
        self.note(changed or replace(self.record, redis=launched.process))
        return launched

    def await_ready(self, kind: _Kind, launched: Launched, deadline: Deadline, *, may_move: bool) -> None:
        """Wait until the server is ready, launching it again while another program has its port.

        Args:
            kind: Which server.
            launched: Its launch.
            deadline: When to give up.
            may_move: Take another port in that case; else insist on this one, which clients know.
        """
        while True:
            process = launched.process
            try:
                launched.wait_until(lambda now=process: kind.is_ready(self.home, self.settings, now), deadline)  # type: ignore[misc]
            except PortTakenError:
                if deadline.is_over:
                    raise
                if may_move:
                    self._move(kind)
                launched = self.launch(kind, deadline)
            else:
                return

    def end(self, kind: _Kind, steps: StopSteps) -> None:
        """End a server, if it runs."""
        process = self.process(kind)
        if process is not None:
            processes.end(process, steps)
        processes.reap()
        self.note(self.record.current())

    def register(self, *, owned: bool) -> None:
        """Count the caller as an owner, or let the servers outlive everybody; see that the keeper watches."""
        record = self.record
        if owned:
            record = replace(record, owners=(*record.owners, processes.this_process()))
        else:
            record = replace(record, is_detached=True)
        if record.keeper is None and not record.is_detached and (record.postgres or record.redis):
            record = replace(record, keeper=_launch_keeper(self.home, record))
        self.note(record)

    def give_up(self, owner: Process) -> None:
        """Forget one start of this owner, and end the servers if it was the last."""
        owners = list(self.record.owners)
        with contextlib.suppress(ValueError):
            owners.remove(owner)
        self.note(replace(self.record, owners=tuple(owners)))
        if not owners and not self.record.is_detached:
            self.end_all()

    def end_all(self) -> None:
        """End both servers and the keeper, and leave no record."""
        self._adopt_unrecorded()
        for kind in KINDS:
            if process := self.process(kind):
                processes.send(process, kind.stop[0][0])  # both at once; below each is waited for
        for kind in KINDS:
            self.end(kind, kind.stop)
        keeper = self.record.keeper
        if keeper is not None and keeper.pid != os.getpid():
            processes.end(keeper, KEEPER_STOP)
            processes.reap()
        self.note(Record())

    def _adopt_unrecorded(self) -> None:
        self.record = replace(
            self.record,
            postgres=self.record.postgres or postgres.unrecorded(self.home),
            redis=self.record.redis or redis_server.unrecorded(self.home),
        )

    def _move(self, kind: _Kind) -> None:
        port = folders.free_port()
        moved = replace(self.settings, postgres_port=port) if kind is POSTGRES else None
        self.settings = moved or replace(self.settings, redis_port=port)
        folders.write_settings(self.home.directory, self.settings)


def _launch_keeper(home: Home, record: Record) -> Process:
    """Start the process that ends the servers when their owners are gone."""
    argv = [sys.executable, "-m", "orchestrator.embedded.keeper", str(home.directory), folders.dump_record(record)]
    launched = processes.launch(argv, log=home.log("keeper"), env=processes.python_environment())
    return launched.process


def end_without_owners(directory: Path, known: Record) -> Record:
    """End the servers if no owner lives. For the keeper.

    Args:
        directory: Where they were started.
        known: What was last known to run: somebody may have deleted the directory of running servers.

    Returns:
        What is left; without owners there is nothing left to keep.
    """
    with _known_session(directory, START_SECONDS) as session:
        if session is None:
            return _end_forgotten(known)
        if session.record.is_detached:
            return Record()
        if not session.record.owners:
            session.end_all()
        return session.record


def _end_forgotten(known: Record) -> Record:
    left = known.current()
    if left.owners:
        return left
    for process, steps in ((left.postgres, postgres.STOP), (left.redis, redis_server.STOP)):
        if process is not None:
            processes.end(process, steps)
    return Record()


def _restart(
    servers: Servers,
    kind: _Kind,
    steps: StopSteps,
    *,
    between: Callable[[Home], None] | None = None,
    timeout: float,
) -> Servers:
    deadline = Deadline.after(timeout)
    with processes.locked(folders.start_lock(servers.directory), deadline):
        session = _Session(*folders.open_home(servers.directory))
        session.end(kind, steps)
        if between is not None:
            between(session.home)
        session.await_ready(kind, session.launch(kind, deadline), deadline, may_move=False)
    return replace(servers, postgres_pid=_pid(session.record.postgres), redis_pid=_pid(session.record.redis))


@contextlib.contextmanager
def _known_session(directory: Path, timeout: float) -> Iterator[_Session | None]:
    """Hold the lock of a directory that was started before; None for any other."""
    if not (directory / "settings.json").exists():
        yield None
        return
    with processes.locked(folders.start_lock(directory), Deadline.after(timeout)):
        known = folders.known_home(directory)
        yield None if known is None else _Session(*known)


def _resolved(directory: Path | None) -> Path:
    return (folders.default_directory() if directory is None else directory).expanduser().absolute()


def _pid(process: Process | None) -> int | None:
    return None if process is None else process.pid


def _describe(session: _Session | None, given: _Given, directory: Path) -> Servers:
    """Put the addresses together: given ones first, ours for the rest."""
    found = Servers(
        database_url=given.database_url or "",
        redis_url=given.redis_url or "",
        broker_url=given.broker_url or "",
        directory=directory,
        log_directory=folders.logs(directory),
    )
    if session is None:
        return found
    home, settings, record = session.home, session.settings, session.record
    found = replace(found, owners=tuple(owner.pid for owner in record.owners), data_directory=home.ground)
    if given.database_url is None:
        socket = f"{quote(str(home.sockets), safe='')}&port={settings.postgres_port}"
        login = f"{postgres.ROLE}:{settings.database_password}"
        found = replace(
            found,
            database_url=f"postgresql+psycopg2://{postgres.ROLE}@/{postgres.DATABASE}?host={socket}",
            database_tcp_url=f"postgresql+psycopg2://{login}@127.0.0.1:{settings.postgres_port}/{postgres.DATABASE}",
            admin_url=f"postgresql+psycopg2://{postgres.SUPERUSER}@/{postgres.DATABASE}?host={socket}",
            postgres_pid=_pid(record.postgres),
        )
    if given.redis_url is None:
        address = f"redis://:{settings.redis_password}@127.0.0.1:{settings.redis_port}"
        found = replace(
            found,
            redis_url=f"{address}/{redis_server.LIMITER_DATABASE}",
            broker_url=given.broker_url or f"{address}/{redis_server.BROKER_DATABASE}",
            redis_socket=home.sockets / "redis.sock",
            redis_pid=_pid(record.redis),
        )
    return found
