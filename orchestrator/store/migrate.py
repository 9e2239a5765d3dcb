"""Migrations: bring a database to the schema this version needs.

Alembic and SQLAlchemy take a second of processor time to import, so they are when there is something to migrate.
"""

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from orchestrator.errors import ConfigurationError, StoreUnavailable
from orchestrator.store.pool import without_driver

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"
_REVISION = re.compile(r'^(revision|down_revision) = "([^"]+)"$', re.MULTILINE)
_LOOK_SECONDS = 0.05
_LOCK = 7_283_645_091
"""Key of the advisory lock: of several processes that migrate at once, one does it and the others wait."""


def _config(database_url: str) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - slow

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["url"] = database_url
    return config


def upgrade(database_url: str) -> None:
    """Apply all migrations that are missing, at once if there are none. Safe to call from several processes at once.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached.
        ConfigurationError: The database has been migrated by a newer version.
    """
    stands_at = current(database_url)
    if stands_at == head():
        return
    if stands_at is not None and stands_at not in _revisions():
        raise ConfigurationError(
            f"the database is at migration {stands_at!r}, which this version does not know: a newer version has "
            "migrated it; run that one"
        )
    from alembic import command  # noqa: PLC0415 - slow
    from sqlalchemy import create_engine, text  # noqa: PLC0415 - slow
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - slow

    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config = _config(database_url)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


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
        if stands_at != head() and stands_at in _revisions():
            raise ConfigurationError(
                f"the database stands at migration {stands_at!r}, this version needs {head()!r}; "
                "run `orchestrator migrate` first"
            )


def head() -> str:
    """Name the newest migration of this version."""
    revisions = _revisions()
    newest = set(revisions) - set(revisions.values())
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


def _revisions() -> dict[str, str | None]:
    """Give the migration before each migration, as their files say."""
    found = (dict(_REVISION.findall(path.read_text())) for path in (_MIGRATIONS / "versions").glob("*.py"))
    return {names["revision"]: names.get("down_revision") for names in found}
