"""The embedded PostgreSQL: create its data, write its settings, launch it, make role and database.

The application's role `orchestrator` owns the database `orchestrator` and may create others; it is no superuser, as
in production. It may take the role `orchestrator_tenant`, which row-level security binds. `postgres` is the superuser
and has no password: it exists on the private socket only. Durability is a promise of ours, so `fsync` and
`synchronous_commit` stay on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from orchestrator.embedded import processes
from orchestrator.embedded.binaries import Program, find_postgres
from orchestrator.embedded.home import Home, Settings, give_file, give_folder, identity, rotate_log
from orchestrator.embedded.processes import Deadline, Launched, Process, ServersError, StopSteps

ROLE = "orchestrator"
TENANT_ROLE = "orchestrator_tenant"
DATABASE = "orchestrator"
SUPERUSER = "postgres"

STOP: StopSteps = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
"""Fast shutdown with its checkpoint, then without it (the next start recovers), then by force; seconds for each."""
STOP_AT_ONCE: StopSteps = STOP[1:]

ROLE_SETTINGS = {"statement_timeout": "15s", "lock_timeout": "3s", "idle_in_transaction_session_timeout": "15s"}
ROLE_SETTINGS_17 = {"transaction_timeout": "30s"}

HBA = """\
# TYPE  DATABASE     USER  ADDRESS        METHOD
local   all          all                  trust  # only the owner of the private folder reaches the socket
local   replication  {superuser}             trust  # for pg_basebackup
host    all          all   127.0.0.1/32   scram-sha-256
"""

CONFIGURATION = """\
# Written at every start. Change settings with ALTER SYSTEM, which wins over this file and is kept.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = {sockets}
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 256MB
fsync = on
full_page_writes = on
synchronous_commit = on
max_wal_size = 2GB
checkpoint_timeout = 15min
random_page_cost = 1.1
jit = off
tcp_keepalives_idle = 30
tcp_keepalives_interval = 10
tcp_keepalives_count = 3
tcp_user_timeout = 30s
client_connection_check_interval = 10s
log_lock_waits = on
log_line_prefix = '%m [%p] '
log_timezone = 'UTC'
timezone = 'UTC'
"""


def launch(home: Home, settings: Settings, deadline: Deadline) -> Launched:
    """Launch the server, creating its data first if there is none; it may not be ready yet.

    Raises:
        ServersError: no program fits, the data is in use elsewhere, or it cannot be created.
    """
    data = home.postgres_data
    program = find_postgres(home.account, major=_data_version(data))
    lock = _lock_data(home, deadline)
    try:
        if not data.exists():
            _create_data(home, program, deadline)
        _remove_stale_files(home, settings)
        give_file(data / "postgresql.conf", _configuration(home, settings), home.account)
        give_file(data / "pg_hba.conf", HBA.format(superuser=SUPERUSER), home.account)
        rotate_log(home.log("postgres"))
    except BaseException:
        os.close(lock)
        raise
    argv = [str(program.path), "-D", str(data)]
    return processes.launch(argv, log=home.log("postgres"), lock=lock, env=environment(), **identity(home.account))


def is_ready(home: Home, _settings: Settings, process: Process) -> bool:
    """Say whether the server accepts connections, by the file in which it says so itself (as `pg_ctl` does)."""
    lines = _pid_file_lines(home.postgres_data)
    return len(lines) >= 8 and lines[0].strip() == str(process.pid) and lines[7].strip() == "ready"


def unrecorded(home: Home) -> Process | None:
    """Find a running server of ours that no record names."""
    return processes.unrecorded(home.postgres_data / "postmaster.pid", home.postgres_data)


def create_database(home: Home, settings: Settings) -> None:
    """Make the application's role and database, unless they are there: a start may have been cut off before them."""
    import psycopg2  # noqa: PLC0415 - the keeper, which never connects, should stay small

    connection = psycopg2.connect(
        host=str(home.sockets), port=settings.postgres_port, user=SUPERUSER, dbname="postgres", connect_timeout=10
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
            if cursor.rowcount == 0:
                # one transaction: a role without its settings would not be noticed by the next start
                wanted = ROLE_SETTINGS | (ROLE_SETTINGS_17 if connection.server_version >= 170000 else {})
                changes = "".join(f"; ALTER ROLE {ROLE} SET {name} = '{value}'" for name, value in wanted.items())
                create = f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD %s; GRANT pg_monitor TO {ROLE}"
                cursor.execute(create + changes, [settings.database_password])
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [TENANT_ROLE])
            if cursor.rowcount == 0:
                options = " WITH INHERIT FALSE, SET TRUE" if connection.server_version >= 160000 else ""
                cursor.execute(f"CREATE ROLE {TENANT_ROLE} NOLOGIN; GRANT {TENANT_ROLE} TO {ROLE}{options}")
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
            if cursor.rowcount == 0:
                cursor.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
    finally:
        connection.close()


def environment() -> dict[str, str]:
    """Return our environment without what PostgreSQL would take for orders or a locale that is not installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


def _data_version(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text().split(".")[0])
    except FileNotFoundError:
        return None


def _lock_data(home: Home, deadline: Deadline) -> int:
    """Take the lock that every process of the server inherits: after a crash it waits for the last orphan."""
    path = home.ground / "postgres.lock"
    lock = processes.lock(path, Deadline.after(min(10.0, deadline.left)))
    if lock is None:
        raise ServersError(
            f"the data in {str(home.postgres_data)!r} is in use by a server that this process cannot see"
        )
    return lock


def _create_data(home: Home, program: Program, deadline: Deadline) -> None:
    """Run `initdb` in a folder beside, so that a run that was cut off leaves nothing that looks like data."""
    fresh = home.ground / "postgres.new"
    shutil.rmtree(fresh, ignore_errors=True)
    give_folder(fresh, home.account)
    options = ["--username", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    if program.major >= 17:
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    try:
        subprocess.run(  # noqa: S603 - a program of the wheel or of PATH
            [program.path.with_name("initdb"), "-D", fresh, *options],
            capture_output=True,
            text=True,
            cwd="/",
            env=environment(),
            timeout=max(1.0, deadline.left),
            check=True,
            **identity(home.account),
        )
    except subprocess.CalledProcessError as problem:
        raise ServersError(f"initdb could not create {str(home.postgres_data)!r}:\n{problem.stderr}") from problem
    except subprocess.TimeoutExpired as problem:
        raise ServersError(f"initdb did not finish in {problem.timeout:.0f} s") from problem
    fresh.rename(home.postgres_data)


def _remove_stale_files(home: Home, settings: Settings) -> None:
    """Remove pid files that name a living stranger.

    PostgreSQL removes one whose pid is free, but refuses to start when the pid has been given to another process. We
    hold the lock, so no server of ours runs; one that somebody started by hand is told by its working folder.
    """
    lines = _pid_file_lines(home.postgres_data)
    if lines and lines[0].strip().isdigit():
        if unrecorded(home) is not None:
            raise ServersError(
                f"somebody else has started PostgreSQL (process {lines[0]}) on {str(home.postgres_data)!r}"
            )
        if Path(f"/proc/{lines[0].strip()}").exists():
            (home.postgres_data / "postmaster.pid").unlink()
    (home.sockets / f".s.PGSQL.{settings.postgres_port}.lock").unlink(missing_ok=True)


def _pid_file_lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _configuration(home: Home, settings: Settings) -> str:
    quoted = str(home.sockets).replace('"', '""').replace("'", "''")
    return CONFIGURATION.format(port=settings.postgres_port, sockets=f"'\"{quoted}\"'")
