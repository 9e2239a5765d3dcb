"""Migrations: bring a database to the schema this version needs."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

_LOCK = 7_283_645_091
"""Key of the advisory lock: of several processes that migrate at once, one does it and the others wait."""


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["url"] = database_url
    return config


def upgrade(database_url: str) -> None:
    """Apply all migrations that are missing. Safe to call from several processes at once."""
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config = _config(database_url)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def head() -> str:
    """Name the newest migration of this version."""
    newest = ScriptDirectory.from_config(_config("")).get_current_head()
    if newest is None:
        raise LookupError("there is no migration")
    return newest


def current(database_url: str) -> str | None:
    """Name the migration a database stands at; None before the first."""
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
