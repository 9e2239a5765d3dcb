"""Migrations go both ways, one process after the other, and step back from tables that others hold."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from orchestrator import embedded
from orchestrator.embedded import without_driver
from orchestrator.errors import ConfigurationError, StoreUnavailable
from orchestrator.store import migrate
from orchestrator.store.migrations import online
from tests.support.databases import ask
from tests.support.waiting import wait_until


@pytest.fixture
def empty_url(servers: embedded.Servers, request: pytest.FixtureRequest) -> str:
    return embedded.fresh_database(servers, f"migrated_{abs(hash(request.node.name))}")


def _columns(url: str) -> list[tuple[str, ...]]:
    return ask(
        url,
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' "
        "ORDER BY 1, 2",
    )


def test_all_migrations_can_be_taken_back_and_applied_again(database_url: str) -> None:
    before = _columns(database_url)
    migrate.downgrade(database_url, "0001")
    assert migrate.current(database_url) == "0001"
    migrate.upgrade(database_url)
    assert migrate.current(database_url) == migrate.head()
    assert sorted(set(before) ^ set(_columns(database_url))) == []


def test_processes_that_migrate_at_once_do_it_once(empty_url: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(migrate.upgrade, [empty_url] * 3))
    assert migrate.current(empty_url) == migrate.head()


def test_a_table_in_use_makes_a_migration_wait_and_nobody_else(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.downgrade(database_url, "0031")
    with closing(psycopg2.connect(without_driver(database_url))) as holder:
        holder.cursor().execute("SELECT count(*) FROM instances")
        migration = threading.Thread(target=migrate.upgrade, args=(database_url, "0032"), daemon=True)
        migration.start()
        wait_until(lambda: _waits_for_lock(database_url), "the migration to wait for the table")
        with closing(psycopg2.connect(without_driver(database_url))) as other, other.cursor() as cursor:
            cursor.execute("SET lock_timeout = '30s'")
            cursor.execute("SELECT count(*) FROM instances")  # comes through: the migration steps back
        assert migrate.current(database_url) == "0031"
        holder.rollback()
    migration.join(90)
    assert migrate.current(database_url) == "0032"
    monkeypatch.setattr(migrate, "LOCKED_SECONDS", 0.0)
    with closing(psycopg2.connect(without_driver(database_url))) as holder:
        holder.cursor().execute("SELECT count(*) FROM instances")
        with pytest.raises(StoreUnavailable, match="in use"):
            migrate.downgrade(database_url, "0031")


def _waits_for_lock(url: str) -> bool:
    return bool(ask(url, "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'instances'::regclass"))


def test_limits_of_the_role_do_not_end_a_migration(database_url: str) -> None:
    with closing(psycopg2.connect(without_driver(database_url))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_database()")
            name = (cursor.fetchone() or [""])[0]
            cursor.execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '1ms'")
    migrate.downgrade(database_url, "0031")
    migrate.upgrade(database_url)


def test_unknown_migrations_are_refused(database_url: str) -> None:
    with pytest.raises(ConfigurationError):
        migrate.upgrade(database_url, "9999")
    with pytest.raises(ConfigurationError):
        migrate.downgrade(database_url, "9999")
    assert migrate.is_newer("0002", "0001")
    assert migrate.is_newer("0001", None)
    assert not migrate.is_newer("0001", "0002")


def test_a_large_table_is_changed_in_parts(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "ROWS_AT_ONCE", 7)
    engine = create_engine(
        without_driver(database_url).replace("postgresql:", "postgresql+psycopg2:"), poolclass=NullPool
    )
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"transaction_per_migration": True})
        with context.begin_transaction(_per_migration=True), Operations.context(context):
            connection.execute(text("INSERT INTO counters SELECT n::text, 0 FROM generate_series(1, 20) AS n"))
            assert online.fill("counters", "value = 1", "value = 0") == 20
            online.create_index("tried_idx", "counters", ["value"], where="value = 1")
            online.create_index("tried_idx", "counters", ["value"])
            online.drop_index("tried_idx")
    engine.dispose()


def test_metadata_from_before_are_listed(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "ROWS_AT_ONCE", 2)
    migrate.downgrade(database_url, "0036")
    with (
        closing(psycopg2.connect(without_driver(database_url))) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "INSERT INTO instances (id, tenant_id, namespace, sequence_id, state, version, priority, timezone, "
            "running, waiting, scheduled, is_held, is_cancelling, round, total_steps, dry_run, dry_run_auto_approve, "
            "created_at, updated_at) SELECT gen_random_uuid(), 't', 'n', gen_random_uuid(), 'completed', 1, 1, 'UTC', "
            "0, 0, 0, false, false, number, 1, false, false, moment, moment "
            "FROM generate_series(1, 3) AS number, (SELECT timestamptz '2026-01-01 00:00:59+00' AS moment) AS one"
        )
        cursor.execute(
            "INSERT INTO contexts (instance_id, metadata) SELECT id, CASE WHEN round = 2 THEN 'null' "
            "ELSE jsonb_build_object('kind', 'x', 'nth', round, 'none', null) END FROM instances"
        )
        connection.commit()
    migrate.upgrade(database_url)
    with closing(psycopg2.connect(without_driver(database_url))) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT i.round, m.tenant_id, m.minute = '2026-01-01 00:00:00+00' FROM instances i "
            "JOIN metadata_entries m ON m.instance_id = i.id WHERE m.entry = metadata_entry('kind', 'x') ORDER BY 1"
        )
        assert cursor.fetchall() == [(1, "t", True), (3, "t", True)]
        cursor.execute("SELECT count(*) FROM metadata_entries")
        assert cursor.fetchall() == [(4,)]
