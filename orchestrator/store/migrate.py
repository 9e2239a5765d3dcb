"""Migrations: bring a database to the schema this version needs.

Alembic and SQLAlchemy take a second of processor time to import, so they are when there is something to migrate.
"""

import random
import re
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from orchestrator.errors import ConfigurationError, StoreUnavailable
from orchestrator.store import row_security
from orchestrator.store.pool import without_driver
from orchestrator.store.row_security import TENANT_ROLE
from orchestrator.store.session import first_line, is_retryable, is_unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.config import Config
    from sqlalchemy import Connection, Engine

_MIGRATIONS = Path(__file__).parent / "migrations"
_REVISION = re.compile(r'^(revision|down_revision) = "([^"]+)"$', re.MULTILINE)
_LOOK_SECONDS = 0.05
LOCKED_SECONDS = 300.0
"""How long a migration is tried again while others hold a table."""
_LIMITS = ("lock_timeout = '2s'", "statement_timeout = 0", "idle_in_transaction_session_timeout = 0")
_TURN_SECONDS = 0.1
"""Pause before a process looks again whether it is its turn."""
_LOCK = 7_283_645_091
"""Key of the advisory lock: of several processes that migrate at once, one does it and the others wait."""


def _config(database_url: str, tenant_role: str) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - slow

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes |= {"url": database_url, "tenant_role": tenant_role}
    return config


def upgrade(database_url: str, to: str = "head", *, tenant_role: str = TENANT_ROLE) -> str | None:
    """Apply the migrations that are missing, at once if there are none. Safe to call from several processes at once.

    Each is a transaction of its own. It waits for locks only shortly, as whoever wants the table next stands behind it,
    and is tried again for some minutes. At the newest one the role of row-level security is seen to as well.

    Args:
        to: The last one to be applied.

    Returns:
        Why the role cannot be used, where the account may not see to it; None if it can, or is not asked for yet.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached, or others did not let go of a table.
        ConfigurationError: The database has been migrated by a newer version, or there is no such migration.
    """
    target = _known(to)
    stands_at = current(database_url)
    if stands_at == target:
        return _see_to_role(database_url, tenant_role) if target == head() else None
    if stands_at is not None and stands_at not in revisions():
        raise ConfigurationError(
            f"the database is at migration {stands_at!r}, which this version does not know: a newer version has "
            "migrated it; run that one"
        )
    from alembic import command  # noqa: PLC0415 - slow

    _run(database_url, tenant_role, lambda config: command.upgrade(config, target))
    return _see_to_role(database_url, tenant_role) if target == head() else None


def downgrade(database_url: str, to: str, *, tenant_role: str = TENANT_ROLE) -> None:
    """Take migrations back, the newest first, as `upgrade` applies them. What their columns held is lost.

    Args:
        to: The last one that stays.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached, or others did not let go of a table.
        ConfigurationError: This version does not know the migration.
    """
    target = _known(to)
    stands_at = current(database_url)
    if stands_at not in revisions():
        raise ConfigurationError(f"the database is at migration {stands_at!r}, which this version cannot take back")
    from alembic import command  # noqa: PLC0415 - slow

    _run(database_url, tenant_role, lambda config: command.downgrade(config, target))


def is_newer(one: str, other: str | None) -> bool:
    """Tell whether a migration of this version comes after another one; None is before the first."""
    return other is None or one not in _line(_known(other))


def _run(database_url: str, tenant_role: str, act: "Callable[[Config], None]") -> None:
    """Let one process after the other act, and repeat it while others hold what it needs."""
    from sqlalchemy import create_engine, event  # noqa: PLC0415 - slow
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - slow
    from sqlalchemy.exc import OperationalError  # noqa: PLC0415 - slow
    from sqlalchemy.pool import NullPool  # noqa: PLC0415 - slow

    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"), poolclass=NullPool)
    event.listen(engine, "begin", _lift_limits)
    until = time.monotonic() + LOCKED_SECONDS
    try:
        with engine.begin() as turn:
            _wait_for(turn)
            while not _is_done(engine, _config(database_url, tenant_role), act, until):
                time.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - lets those behind it through
    except OperationalError as error:
        if is_unavailable(error.orig or error):
            raise StoreUnavailable(f"PostgreSQL was lost while it was migrated: {first_line(error)}") from error
        raise
    finally:
        engine.dispose()


def _lift_limits(connection: "Connection") -> None:
    """Lift the limits of statements that serve requests: a large table takes its time."""
    limits = [*_LIMITS, *(["transaction_timeout = 0"] if _version_of(connection) >= 17 else [])]
    connection.exec_driver_sql("; ".join(f"SET LOCAL {limit}" for limit in limits))


def _wait_for(turn: "Connection") -> None:
    """Wait until it is the turn of this process.

    Asked for again and again: whoever waits inside of a statement holds a snapshot, and what builds an index without
    keeping others out waits for all snapshots that are older than itself.
    """
    while not turn.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({_LOCK})").scalar():
        time.sleep(_TURN_SECONDS)


def _is_done(engine: "Engine", config: "Config", act: "Callable[[Config], None]", until: float) -> bool:
    """Act once; False if others hold what it needs, and StoreUnavailable if they have done so for too long."""
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 - slow

    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            act(config)
    except DBAPIError as error:
        if not is_retryable(error.orig or error):
            raise
        if time.monotonic() >= until:
            raise StoreUnavailable(f"a table is in use by others: {first_line(error)}") from error
        return False
    return True


def _see_to_role(database_url: str, tenant_role: str) -> str | None:
    with closing(psycopg2.connect(without_driver(database_url), connect_timeout=10)) as connection:
        return row_security.prepare(connection, tenant_role, lock=_LOCK)


def _version_of(connection: "Connection") -> int:
    return int((connection.dialect.server_version_info or (0,))[0])


def _known(revision: str) -> str:
    if revision == "head":
        return head()
    if revision not in revisions():
        raise ConfigurationError(f"there is no migration {revision!r} in this version; the newest is {head()!r}")
    return revision


def _line(revision: str) -> frozenset[str]:
    """Give a migration and all before it."""
    before_each, found = revisions(), {revision}
    while (before := before_each[revision]) is not None:
        found.add(before)
        revision = before
    return frozenset(found)


def wait_for_upgrade(database_url: str, within: float = 60.0) -> None:
    """Wait until another process has brought the database to the schema of this version.

    Args:
        within: Seconds.

    Raises:
        StoreUnavailable: It was not in time.
    """
    deadline = time.monotonic() + within
    stands_at: str | None = None
    while time.monotonic() < deadline:
        with suppress(StoreUnavailable):
            stands_at = current(database_url)
        if stands_at == head():
            return
        time.sleep(_LOOK_SECONDS)
    raise StoreUnavailable(f"the database stands at migration {stands_at!r}, and nobody has brought it to {head()!r}")


def check(database_url: str) -> None:
    """Refuse a database that lacks migrations of this version; one that does not answer may come up later.

    Raises:
        ConfigurationError: Migrations are missing, or the URL is none.
    """
    with suppress(StoreUnavailable):
        stands_at = current(database_url)
        if stands_at is None:
            raise ConfigurationError("the database is empty; run `orchestrator migrate` first")
        if stands_at != head() and stands_at in revisions():
            raise ConfigurationError(
                f"the database stands at migration {stands_at!r}, this version needs {head()!r}; "
                "run `orchestrator migrate` first"
            )


def head() -> str:
    """Name the newest migration of this version."""
    before_each = revisions()
    newest = set(before_each) - set(before_each.values())
    if len(newest) != 1:
        raise LookupError(f"the migrations do not form one line; their ends are {sorted(newest)}")
    return newest.pop()


def current(database_url: str) -> str | None:
    """Name the migration a database stands at; None before the first.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached.
        ConfigurationError: The URL is none.
    """
    try:
        connection = psycopg2.connect(without_driver(database_url), connect_timeout=10)
    except psycopg2.OperationalError as error:
        raise StoreUnavailable(f"PostgreSQL does not answer: {' '.join(str(error).split())}") from error
    except psycopg2.ProgrammingError as error:
        raise ConfigurationError(f"DATABASE_URL is no address of PostgreSQL: {' '.join(str(error).split())}") from error
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('alembic_version') IS NOT NULL")
            if cursor.fetchone() != (True,):
                return None
            cursor.execute("SELECT version_num FROM alembic_version")
            row = cursor.fetchone()
            return None if row is None else str(row[0])
    finally:
        connection.close()


def revisions() -> dict[str, str | None]:
    """Give the migration before each migration, as their files say."""
    found = (dict(_REVISION.findall(path.read_text())) for path in (_MIGRATIONS / "versions").glob("*.py"))
    return {names["revision"]: names.get("down_revision") for names in found}
