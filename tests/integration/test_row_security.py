"""What the role of tenants shows, and what becomes of an installation whose account may not make it."""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from orchestrator import embedded
from orchestrator.embedded import postgres as embedded_postgres
from orchestrator.errors import ConfigurationError, StoreUnavailable
from orchestrator.store import listing, reading, row_security
from orchestrator.store.listing import Filter
from orchestrator.store.migrate import downgrade, upgrade
from orchestrator.store.pool import Pooler
from orchestrator.store.row_security import READ, TENANT_ROLE, RowSecurity, RowSecurityMode
from orchestrator.store.session import Store, Transaction
from orchestrator.store.tables import metadata
from tests.support.pages import page

OWN, FOREIGN = "acme", 'it\'s \\ "mallory"; --'
"""Names of tenants are whatever clients have written."""
OF_NOBODY = {"deleted_sequences", "nonces", "counters", "worker_commands", "installation"}
TABLES = [table for table in metadata.sorted_tables if table.name not in OF_NOBODY]
OWNERS = {"contexts": "instance_id", "letters": "recipient_id", "pool_resources": "pool_id", "task_pushes": "step_id"}
"""Columns that name the row whose tenant a row has; `instance_id` unless another is given."""

_numbers = itertools.count(1)


@pytest.fixture
def role() -> str:
    """The name of a role that nobody has made."""
    return f"tenants_{os.getpid()}_{next(_numbers)}"


@pytest.fixture(params=list(Pooler))
def pooled(database_url: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    opened = Store(database_url, pooler=request.param)
    yield opened
    opened.close()


def _value(column: Column[Any], tenant: str, ids: dict[str, UUID]) -> Any:
    """Give something that a column takes; ids of one tenant are the same in all tables."""
    if column.name == "tenant_id":
        return tenant
    if column.name in ids:
        return str(ids[column.name])
    written = str(column.type.compile(dialect=postgresql.dialect()))
    if written.endswith("[]"):
        return "{}"
    return {
        "UUID": str(uuid4()),
        "TEXT": f"{tenant}{uuid4()}",
        "BOOLEAN": False,
        "JSON": "{}",
        "JSONB": "{}",
        "TIMESTAMP WITH TIME ZONE": "2026-01-01Z",
    }.get(written, 1)


def _fill(store: Store, tenant: str) -> None:
    """Put a row of a tenant into every table."""
    ids = {name: uuid4() for name in ("id", "instance_id", "recipient_id", "pool_id", "step_id", "schedule_id")}
    same = {"instance_id": ids["id"], "recipient_id": ids["id"], "pool_id": ids["id"], "step_id": ids["id"]}
    with store.transaction() as tx:
        for table in metadata.sorted_tables:
            columns = [
                each
                for each in table.columns
                if each.computed is None
                and each.identity is None
                and (not each.nullable or each.name in {"tenant_id", *same})
                and each.server_default is None
            ]
            names = ", ".join(f'"{each.name}"' for each in columns)
            keys = ids | same
            if str(table.columns.get("id", table.columns[0]).type) == "TEXT":
                keys = {name: each for name, each in keys.items() if name != "id"}
            values = tuple(_value(each, tenant, keys) for each in columns)
            tx.execute(f"INSERT INTO {table.name} ({names}) VALUES ({', '.join(['%s'] * len(values))})", values)


def _seen(store: Store, table: Table, tenant: str) -> int:
    """Count what a role of this test sees of a table that it is let read, whether the role of tenants may or not."""
    with store.transaction() as tx:
        tx.execute(f"GRANT SELECT ON {table.name} TO {TENANT_ROLE}")
        tx.execute("SET LOCAL orchestrator.tenant = %s", (tenant,))
        tx.execute(f"SET LOCAL ROLE {TENANT_ROLE}")
        count: int = tx.query(f"SELECT count(*) FROM (SELECT * FROM {table.name}) AS all_of_it")[0][0]
        tx.execute("RESET ROLE")
        tx.execute(f"REVOKE SELECT ON {table.name} FROM {TENANT_ROLE}")
        if table.name in READ:
            columns = ", ".join(READ[table.name])
            tx.execute(f"GRANT SELECT {f'({columns})' if columns else ''} ON {table.name} TO {TENANT_ROLE}")
        return count


def test_a_tenant_sees_its_own_row_of_every_table_and_no_other(store: Store) -> None:
    for tenant in (OWN, FOREIGN):
        _fill(store, tenant)
    seen = {
        table.name: tuple(_seen(store, table, tenant) for tenant in (OWN, FOREIGN, "", "nobody"))
        for table in metadata.sorted_tables
    }
    of_tenants = {name: counts for name, counts in seen.items() if name not in OF_NOBODY}
    assert of_tenants == dict.fromkeys(of_tenants, (1, 1, 0, 0))
    assert {name: seen[name] for name in OF_NOBODY} == dict.fromkeys(OF_NOBODY, (0, 0, 0, 0))


def test_a_table_without_a_policy_would_be_noticed(store: Store) -> None:
    for tenant in (OWN, FOREIGN):
        _fill(store, tenant)
    with store.transaction() as tx:
        tx.execute("ALTER TABLE outputs DISABLE ROW LEVEL SECURITY")
        tx.execute("DROP POLICY of_tenant ON nodes")
    assert _seen(store, metadata.tables["outputs"], OWN) == 2
    assert _seen(store, metadata.tables["nodes"], OWN) == 0
    found = row_security.fault(lambda text, values: _ask(store, text, values), TENANT_ROLE)
    assert found is not None
    assert "outputs" in found


def _ask(store: Store, statement: str, parameters: Any) -> Any:
    with store.transaction() as tx:
        return tx.query(statement, parameters)


@pytest.mark.parametrize("tenant", [OWN, FOREIGN])
def test_reading_for_a_tenant_ends_with_its_transaction(pooled: Store, tenant: str) -> None:
    _fill(pooled, tenant)
    with pooled.reading(tenant) as tx:
        assert tx.query("SELECT current_user, current_setting('orchestrator.tenant')") == [(TENANT_ROLE, tenant)]
        assert tx.query("SELECT tenant_id FROM instances") == [(tenant,)]
    with pooled.reading("other") as tx:
        assert tx.query("SELECT tenant_id FROM instances") == []
    for begin in (pooled.transaction, lambda: pooled.reading(None)):
        with begin() as tx:
            assert tx.query("SELECT current_user, current_setting('orchestrator.tenant')") == [("orchestrator", "")]
            assert tx.query("SELECT tenant_id FROM instances") == [(tenant,)]


def test_a_list_by_metadata_shows_its_tenant_alone_what_another_one_has_too(pooled: Store) -> None:
    for tenant in (OWN, FOREIGN):
        _fill(pooled, tenant)
    which = Filter(metadata=(("colour", "red"),))  # a tenant that somebody forgot
    with pooled.transaction() as tx:
        tx.execute('UPDATE contexts SET metadata = \'{"colour": "red"}\'')
    for tenant, count in ((OWN, 1), (FOREIGN, 1), ("nobody", 0), (None, 2)):
        with pooled.reading(tenant) as tx:
            assert len(listing.matching(tx, which)) == count
            assert len(page(tx, which, offset=0, limit=10)) == count
            assert len(tx.query("SELECT 1 FROM metadata_entries")) == count


def test_a_role_ends_with_a_transaction_that_fails(store: Store) -> None:
    with pytest.raises(psycopg2.errors.DivisionByZero), store.reading(OWN) as tx:
        tx.query("SELECT 1 / 0")
    with store.transaction() as tx:
        assert tx.query("SELECT current_user") == [("orchestrator",)]


def _refusal(begin: Callable[[], AbstractContextManager[Transaction]], *statements: str) -> type[Exception] | None:
    """Say how the server refuses the last of some statements; None if it does not."""
    try:
        with begin() as tx:
            for statement in statements:
                tx.execute(statement)
    except psycopg2.Error as error:
        return type(error)
    return None


@pytest.mark.parametrize("tenant", [None, OWN])
def test_what_reads_writes_nothing(store: Store, tenant: str | None) -> None:
    _fill(store, OWN)
    for table in TABLES:
        refused = _refusal(lambda: store.reading(tenant), "SELECT 1", f"DELETE FROM {table.name}")
        assert refused is psycopg2.errors.ReadOnlySqlTransaction, table.name


def test_the_role_writes_nothing_even_where_a_transaction_may(store: Store) -> None:
    for table in metadata.sorted_tables:
        first = table.columns.keys()[0]
        for write in (
            f"INSERT INTO {table.name} DEFAULT VALUES",
            f'UPDATE {table.name} SET "{first}" = NULL',
            f"DELETE FROM {table.name}",
            f"TRUNCATE {table.name}",
        ):
            refused = _refusal(store.transaction, f"SET LOCAL ROLE {TENANT_ROLE}", write)
            assert refused is psycopg2.errors.InsufficientPrivilege, write


def test_digests_of_keys_and_tables_of_nobody_are_not_read(store: Store) -> None:
    for statement in ("SELECT digest FROM api_keys", *(f"SELECT 1 FROM {name}" for name in sorted(OF_NOBODY))):
        refused = _refusal(store.transaction, f"SET LOCAL ROLE {TENANT_ROLE}", statement)
        assert refused is psycopg2.errors.InsufficientPrivilege, statement


def test_the_role_reads_all_that_a_decision_does() -> None:
    """What could be done about an instance is decided for a preview, in the role of its tenant."""
    named = set(re.findall(r"(?:FROM|JOIN) ([a-z_]+)", Path(reading.__file__).read_text()))
    assert {"instances", "state_values", "items"} <= named
    assert named & metadata.tables.keys() <= READ.keys()


def test_the_embedded_cluster_makes_the_role_of_the_settings() -> None:
    assert embedded_postgres.TENANT_ROLE == TENANT_ROLE


# -- an account that may not make roles ------------------------------------------------------------------------------


@pytest.fixture
def admin(servers: embedded.Servers) -> Iterator[Any]:
    assert servers.admin_url is not None
    connection = psycopg2.connect(embedded.without_driver(servers.admin_url))
    connection.autocommit = True
    yield connection.cursor()
    connection.close()


def test_without_the_right_to_make_the_role_tenants_are_read_for_without_it(
    database_url: str, role: str, admin: Any
) -> None:
    fault = upgrade(database_url, tenant_role=role)
    assert fault is not None
    assert repr(role) in fault
    free = Store(database_url, row_security=RowSecurity(RowSecurityMode.AUTO, role))
    bound = Store(database_url, row_security=RowSecurity(RowSecurityMode.REQUIRED, role))
    try:
        free.try_out_row_security()
        with free.reading(OWN) as tx:
            assert tx.query("SELECT current_user") == [("orchestrator",)]
        assert free.row_security.fault == fault
        with pytest.raises(ConfigurationError, match=role):
            bound.try_out_row_security()
        with pytest.raises(StoreUnavailable, match=role), bound.reading(OWN):
            pass

        admin.execute(f"CREATE ROLE {role} NOLOGIN; GRANT {role} TO orchestrator")
        assert upgrade(database_url, tenant_role=role) is None
        bound.row_security.doubt("made by hand")
        bound.try_out_row_security()
        with bound.reading(OWN) as tx:
            assert tx.query("SELECT current_user") == [(role,)]
    finally:
        free.close()
        bound.close()


def test_an_account_that_may_make_roles_makes_it(servers: embedded.Servers, role: str, admin: Any) -> None:
    maker = f"maker_of_{role}"
    admin.execute(f"CREATE ROLE {maker} LOGIN CREATEROLE PASSWORD 'maker'")
    admin.execute(f"CREATE DATABASE {maker} OWNER {maker}")
    assert servers.database_tcp_url is not None
    host = servers.database_tcp_url.rpartition("@")[2].partition("/")[0]
    url = f"postgresql://{maker}:maker@{host}/{maker}"
    assert upgrade(url, tenant_role=role) is None
    assert upgrade(url, tenant_role=role) is None
    store = Store(url, row_security=RowSecurity(RowSecurityMode.REQUIRED, role))
    try:
        _fill(store, FOREIGN)
        with store.reading(OWN) as tx:
            assert tx.query("SELECT current_user, (SELECT count(*) FROM instances)") == [(role, 0)]
    finally:
        store.close()


def test_a_role_that_policies_do_not_bind_is_not_taken(database_url: str, role: str, admin: Any) -> None:
    admin.execute(f"CREATE ROLE {role} NOLOGIN BYPASSRLS; GRANT {role} TO orchestrator")
    fault = upgrade(database_url, tenant_role=role)
    assert fault is not None
    assert "BYPASSRLS" in fault
    admin.execute(f"ALTER ROLE {role} NOBYPASSRLS")
    assert upgrade(database_url, tenant_role=role) is None


def test_a_role_that_is_gone_is_missed_once(database_url: str, role: str, admin: Any) -> None:
    admin.execute(f"CREATE ROLE {role} NOLOGIN; GRANT {role} TO orchestrator")
    assert upgrade(database_url, tenant_role=role) is None
    store = Store(database_url, row_security=RowSecurity(RowSecurityMode.AUTO, role))
    try:
        with store.reading(OWN) as tx:
            assert tx.query("SELECT current_user") == [(role,)]
        admin.execute(f"REVOKE {role} FROM orchestrator")
        with pytest.raises(StoreUnavailable), store.reading(OWN) as tx:
            tx.query("SELECT 1")
        with store.reading(OWN) as tx:
            assert tx.query("SELECT current_user") == [("orchestrator",)]
    finally:
        store.close()


def test_an_account_that_policies_bind_is_refused(database_url: str, role: str, admin: Any) -> None:
    admin.execute(f"CREATE ROLE {role} NOLOGIN")
    admin.execute(f"GRANT {role} TO orchestrator")
    upgrade(database_url, tenant_role=role)
    store = Store(database_url)
    try:
        with store.transaction() as tx:
            row_security.check_account(tx.query)
            tx.execute(f"SET LOCAL ROLE {role}")
            with pytest.raises(ConfigurationError, match="does not own"):
                row_security.check_account(tx.query)
    finally:
        store.close()


def test_the_policies_come_and_go(database_url: str) -> None:
    store = Store(database_url)
    granted = "SELECT count(*) FROM information_schema.column_privileges WHERE grantee = %s AND table_schema = 'public'"
    policies = "SELECT count(*), (SELECT count(*) FROM pg_class WHERE relrowsecurity) FROM pg_policy"

    def stands() -> list[tuple[Any, ...]]:
        with store.transaction() as tx:
            return tx.query(granted, (TENANT_ROLE,)) + tx.query(policies)

    try:
        before = stands()
        assert before[0][0] > 100
        assert before[1] == (len(TABLES), len(metadata.tables))
        downgrade(database_url, "0033")
        assert stands() == [(0,), (0, 0)]
        assert upgrade(database_url) is None
        assert stands() == before
    finally:
        store.close()
