"""Row-level security behind the queries: what a transaction that reads for a tenant can see at all.

Every query names the tenant it reads for. Behind that stand policies of PostgreSQL, and a role that they bind: a
transaction that only reads, for one tenant, takes the role and says whose it is, both until its end. A condition that
was forgotten then shows nothing of others. The engine's own transactions run as the account that owns the tables, which
no policy binds: they move instances of all tenants.

The policies are made by migrations. The role belongs to a whole cluster, so it is made, and granted what it may read,
beside them, whenever the database is brought up to date.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Any, Final

import psycopg2
import structlog

from orchestrator.errors import ConfigurationError, StoreUnavailable

log = structlog.get_logger()

TENANT_ROLE: Final = "orchestrator_tenant"
LOOK_AGAIN_SECONDS: Final = 60.0
"""After so long a role that was missing is looked for again: an administrator may have made it meanwhile."""

READ: Final[dict[str, tuple[str, ...]]] = {
    "sequences": (),
    "instances": (),
    "contexts": (),
    "metadata_entries": (),
    "nodes": (),
    "steps": (),
    "timers": (),
    "outputs": (),
    "payloads": (),
    "attempts": (),
    "task_events": (),
    "transitions": (),
    "step_logs": (),
    "state_values": (),
    "items": (),
    "signals": (),
    "sessions": (),
    "checkpoints": (),
    "injections": (),
    "letters": (),
    "triggers": (),
    "api_keys": (
        "id",
        "tenant_id",
        "name",
        "capabilities",
        "created_at",
        "last_used_at",
        "expires_at",
        "revoked_at",
    ),
    "schedules": (),
    "credentials": (),
    "usage_events": (),
    "effects": (),
    "resource_pools": (),
    "pool_resources": (),
    "plugins": (),
    "correlation_events": (),
    "circuit_breakers": (),
    "rate_limits": (),
    "dispatch_configs": (),
    "webhook_outbox": (),
    "webhook_attempts": (),
    "task_pushes": (),
    "version_pins": (),
    "routing_rules": (),
    "workers": (),
}
"""What the role may read: tables, and which of their columns; none named are all. It may write nothing."""

_GRANTS: Final = tuple((table, column) for table, columns in READ.items() for column in columns or (None,))

_EXAMINATION: Final = """
SELECT r.oid IS NOT NULL,
       r.rolsuper OR r.rolbypassrls,
       CASE WHEN current_setting('server_version_num')::int >= 160000 THEN pg_has_role(current_user, r.oid, 'SET')
            ELSE pg_has_role(current_user, r.oid, 'MEMBER') END,
       ARRAY(SELECT t.name FROM unnest(%(tables)s::text[]) AS t (name)
             LEFT JOIN pg_class c ON c.oid = to_regclass(t.name)
             WHERE NOT coalesce(c.relrowsecurity, false) OR pg_has_role(r.oid, c.relowner, 'USAGE')
                OR has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')),
       ARRAY(SELECT DISTINCT g.name FROM unnest(%(granted)s::text[], %(columns)s::text[]) AS g (name, part)
             WHERE to_regclass(g.name) IS NOT NULL
               AND NOT CASE WHEN g.part IS NULL THEN has_table_privilege(r.oid, to_regclass(g.name), 'SELECT')
                            ELSE has_column_privilege(r.oid, to_regclass(g.name), g.part, 'SELECT') END)
FROM (SELECT 1) AS one LEFT JOIN pg_roles r ON r.rolname = %(role)s
"""


class RowSecurityMode(StrEnum):
    """What is done with row-level security."""

    AUTO = "auto"
    """It is used where the role is there; where it is not, that is said."""
    REQUIRED = "required"
    """Nothing is served to tenants without it."""
    OFF = "off"


Query = Callable[[str, Any], Sequence[Sequence[Any]]]
"""Runs one statement and gives its rows."""


def fault(query: Query, role: str) -> str | None:
    """Say why the role cannot be taken, or would not bind; None if all is well."""
    parameters = {
        "role": role,
        "tables": list(READ),
        "granted": [table for table, _ in _GRANTS],
        "columns": [column for _, column in _GRANTS],
    }
    [(exists, is_free, may_take, unbound, ungranted)] = query(_EXAMINATION, parameters)
    if not exists:
        return f"there is no role {role!r}"
    if is_free:
        return f"no policy binds the role {role!r}: it is a superuser or has BYPASSRLS"
    if not may_take:
        return f"the account of DATABASE_URL may not take the role {role!r}"
    if unbound:
        return f"no policy binds the role {role!r}, or it may write, in {', '.join(unbound)}"
    if ungranted:
        return f"the role {role!r} may not read {', '.join(sorted(ungranted))}"
    return None


def remedy(role: str) -> str:
    """Say what an administrator of the cluster does about a fault."""
    return (
        f"as a superuser: CREATE ROLE {role} NOLOGIN; GRANT {role} TO <the account of DATABASE_URL>; "
        "then run `orchestrator migrate`"
    )


def check_account(query: Query) -> None:
    """Refuse an account that policies bind: the engine moves the instances of all tenants.

    Raises:
        ConfigurationError: It does not own the tables.
    """
    if query("SELECT row_security_active(to_regclass('instances'))", None)[0][0]:
        raise ConfigurationError(
            "the account of DATABASE_URL does not own the tables, so row-level security hides their rows from it: use "
            "the account that has migrated the database, or GRANT that one to it"
        )


class RowSecurity:
    """Whether transactions that read for a tenant take the role; as one process knows it. Safe in several threads.

    Args:
        mode: What is done where the role is missing.
        role: Its name.
    """

    def __init__(self, mode: RowSecurityMode = RowSecurityMode.AUTO, role: str = TENANT_ROLE) -> None:
        self.mode = mode
        self.name = role
        self.fault: str | None = None
        self._is_sound = False
        self._look_at = 0.0
        self._lock = threading.Lock()

    def role(self, begin: Callable[[], AbstractContextManager[Any]]) -> str | None:
        """Give the role to take; None to go without. What is not known yet is looked up.

        Args:
            begin: Opens a transaction of the account itself.

        Raises:
            StoreUnavailable: It is required, and cannot be taken.
        """
        if self._is_sound:
            return self.name
        if self.mode is RowSecurityMode.OFF:
            return None
        if time.monotonic() >= self._look_at:
            with begin() as tx:
                self._note(fault(tx.query, self.name))
        if self._is_sound:
            return self.name
        if self.mode is RowSecurityMode.REQUIRED:
            raise StoreUnavailable(f"row-level security is required, and {self.fault}")
        return None

    def check(self) -> None:
        """Refuse to go on if it is required and known to be missing; raises ConfigurationError."""
        if self.mode is RowSecurityMode.REQUIRED and self.fault is not None:
            raise ConfigurationError(f"ORCHESTRATOR_ROW_SECURITY=required, and {self.fault}: {remedy(self.name)}")

    def _note(self, found: str | None) -> None:
        with self._lock:
            is_new = found is not None and found != self.fault
            self.fault, self._is_sound = found, found is None
            self._look_at = time.monotonic() + LOOK_AGAIN_SECONDS
        if is_new:
            log.warning("row_security_missing", fault=found, remedy=remedy(self.name))

    def doubt(self, refusal: str) -> None:
        """Look again before the next transaction: the role was refused."""
        log.warning("row_security_refused", error=refusal)
        with self._lock:
            self._is_sound, self._look_at = False, 0.0


def prepare(connection: Any, role: str, *, lock: int) -> str | None:
    """Make the role, take the right to it and grant it what it reads, as far as the account may and it is not done.

    Safe to repeat. Other databases of the cluster share the role; the grants are this one's.

    Args:
        connection: An open connection of psycopg2, outside of a transaction.
        lock: Key of the advisory lock under which one process at a time does so.

    Returns:
        What is still wrong; None if nothing is.
    """
    with connection, connection.cursor() as cursor:

        def query(statement: str, parameters: Any) -> Sequence[Sequence[Any]]:
            cursor.execute(statement, parameters)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

        if fault(query, role) is None:
            return None
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [lock])
        for attempt in (_make, _join, _grant):
            cursor.execute("SAVEPOINT attempt")
            try:
                attempt(cursor, role)
            except psycopg2.Error as error:
                cursor.execute("ROLLBACK TO SAVEPOINT attempt")
                log.info("row_security_step_failed", step=attempt.__name__, error=str(error).splitlines()[0])
        return fault(query, role)


def _make(cursor: Any, role: str) -> None:
    cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [role])
    if cursor.rowcount == 0:
        cursor.execute(f"CREATE ROLE {role} NOLOGIN")


def _join(cursor: Any, role: str) -> None:
    """Take the right to take the role, where the server lets its account say how, without what the role may do."""
    has_options = cursor.connection.server_version >= 160000
    cursor.execute("SELECT pg_has_role(current_user, %s, %s)", [role, "SET" if has_options else "MEMBER"])
    if cursor.fetchone() != (True,):
        options = " WITH INHERIT FALSE, SET TRUE" if has_options else ""
        cursor.execute(f"GRANT {role} TO CURRENT_USER{options}")


def _grant(cursor: Any, role: str) -> None:
    for table, columns in READ.items():
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [table])
        if cursor.fetchone() == (True,):
            named = f" ({', '.join(columns)})" if columns else ""
            cursor.execute(f"GRANT SELECT{named} ON {table} TO {role}")
    cursor.execute("SELECT has_schema_privilege(%s, current_schema(), 'USAGE'), quote_ident(current_schema())", [role])
    may_use, schema = cursor.fetchone()
    if not may_use:
        cursor.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
