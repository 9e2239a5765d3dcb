"""The registry of plugins (contract, api §21)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin under a name of its tenant's."""

    name: str
    plugin_type: str
    source: str
    tenant_id: str
    enabled: bool
    config: Any
    description: str | None
    created_at: datetime
    updated_at: datetime


_COLUMNS = ", ".join(each.name for each in fields(Plugin))


def _plugin_of(row: Sequence[Any]) -> Plugin:
    return Plugin(**dict(zip(_COLUMNS.split(", "), row, strict=True)))


def insert(
    tx: Transaction, tenant_id: str, name: str, plugin_type: str, source: str, config: Any, description: str | None
) -> Plugin | None:
    """Store a new plugin; None if the tenant has one of that name."""
    rows = tx.query(
        f"INSERT INTO plugins ({_COLUMNS}) "
        "VALUES (%s, %s, %s, %s, true, %s, %s, statement_timestamp(), statement_timestamp()) "
        f"ON CONFLICT (tenant_id, name) DO NOTHING RETURNING {_COLUMNS}",
        (name, plugin_type, source, tenant_id, private(config), description),
    )
    return _plugin_of(rows[0]) if rows else None


def get(tx: Transaction, tenant_id: str, name: str) -> Plugin | None:
    """Read a plugin; None if the tenant has none of that name."""
    rows = tx.query(f"SELECT {_COLUMNS} FROM plugins WHERE tenant_id = %s AND name = %s", (tenant_id, name))
    return _plugin_of(rows[0]) if rows else None


def owners(tx: Transaction, name: str) -> list[str]:
    """List the tenants that have a plugin of a name."""
    return [row[0] for row in tx.query("SELECT tenant_id FROM plugins WHERE name = %s ORDER BY tenant_id", (name,))]


def find(tx: Transaction, tenant_id: str | None, *, offset: int, limit: int) -> list[Plugin]:
    """List plugins of one tenant, or of all, by tenant and name."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM plugins WHERE (%(tenant)s IS NULL OR tenant_id = %(tenant)s) "
        "ORDER BY tenant_id, name LIMIT %(limit)s OFFSET %(offset)s",
        {"tenant": tenant_id, "limit": limit, "offset": offset},
    )
    return [_plugin_of(row) for row in rows]


def change(tx: Transaction, tenant_id: str, name: str, values: Mapping[str, Any]) -> Plugin | None:
    """Write some columns of a plugin, by name; None if the tenant has none of that name."""
    written = {column: private(value) if column == "config" else value for column, value in values.items()}
    assignments = "".join(f"{column} = %s, " for column in written)
    rows = tx.query(
        f"UPDATE plugins SET {assignments}updated_at = clock_timestamp() WHERE tenant_id = %s AND name = %s "
        f"RETURNING {_COLUMNS}",
        (*written.values(), tenant_id, name),
    )
    return _plugin_of(rows[0]) if rows else None


def delete(tx: Transaction, tenant_id: str, name: str) -> bool:
    """Take a plugin off the registry; False if the tenant has none of that name."""
    return bool(tx.execute("DELETE FROM plugins WHERE tenant_id = %s AND name = %s", (tenant_id, name)))
