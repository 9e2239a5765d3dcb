"""What workers are told, which versions of them get tasks, and rules that lead tasks to other queues (api §13.7)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.routing import Route, Routes
from orchestrator.store.prepared import form
from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction

_COMMAND = "id, worker_id, command, payload, created_at"
_PIN = "tenant_id, handler_name, min_version, created_at, updated_at"
_RULE = "id, tenant_id, handler_name, match_queue, queue_override, priority, enabled, created_at, updated_at"

HANDLERS = (
    "ARRAY(SELECT DISTINCT unnest(handlers) FROM workers WHERE kind = 'celery' "
    "AND heartbeat_at >= clock_timestamp() - {})"
)
"""The handlers that Celery workers know which have been heard of in a given time."""
ROUTES = (
    "(SELECT jsonb_agg(jsonb_build_array(tenant_id, handler_name, match_queue, queue_override) "
    "ORDER BY priority DESC, id) FROM routing_rules WHERE enabled)"
)
_HANDLERS_AND_ROUTES = form("handlers_and_routes", ["interval"], f"SELECT {HANDLERS.format('$1')}, {ROUTES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something that one worker is told; it stays until somebody deletes it."""

    id: UUID
    worker_id: str
    command: str
    payload: Any
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The least version of a worker that gets tasks of a handler."""

    tenant_id: str
    handler_name: str
    min_version: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule that leads new tasks of a handler to another queue.

    Args:
        match_queue: Only tasks of this queue; None for all.
        priority: The highest that fits counts; of several such the oldest.
    """

    id: UUID
    tenant_id: str
    handler_name: str
    match_queue: str | None
    queue_override: str
    priority: int
    enabled: bool
    created_at: datetime
    updated_at: datetime


def insert_command(tx: Transaction, command_id: UUID, worker_id: str, command: str, payload: Any) -> Command:
    """Tell a worker something."""
    rows = tx.query(
        f"INSERT INTO worker_commands ({_COMMAND}) VALUES (%s, %s, %s, %s, clock_timestamp()) RETURNING {_COMMAND}",
        (command_id, worker_id, command, private(payload)),
    )
    return Command(**_named(_COMMAND, rows[0]))


def commands_of(tx: Transaction, worker_id: str, limit: int) -> list[Command]:
    """List what a worker was told, the oldest first."""
    rows = tx.query(
        f"SELECT {_COMMAND} FROM worker_commands WHERE worker_id = %s ORDER BY id LIMIT %s", (worker_id, limit)
    )
    return [Command(**_named(_COMMAND, row)) for row in rows]


def delete_command(tx: Transaction, command_id: UUID) -> bool:
    """Take a command back, or note that it was obeyed; False if there is none."""
    return bool(tx.execute("DELETE FROM worker_commands WHERE id = %s", (command_id,)))


def put_pin(tx: Transaction, tenant_id: str, handler: str, min_version: str, rank: Sequence[int]) -> Pin:
    """Let only workers of a version, or a higher one, have tasks of a handler."""
    rows = tx.query(
        "INSERT INTO version_pins (tenant_id, handler_name, min_version, rank, created_at, updated_at) "
        "VALUES (%s, %s, %s, %s, statement_timestamp(), statement_timestamp()) ON CONFLICT (tenant_id, handler_name) "
        "DO UPDATE SET min_version = EXCLUDED.min_version, rank = EXCLUDED.rank, updated_at = EXCLUDED.updated_at "
        f"RETURNING {_PIN}",
        (tenant_id, handler, min_version, list(rank)),
    )
    return Pin(**_named(_PIN, rows[0]))


def pins(tx: Transaction, tenant_id: str | None) -> list[Pin]:
    """List pins, of one tenant or of all."""
    rows = tx.query(
        f"SELECT {_PIN} FROM version_pins WHERE (%(tenant)s IS NULL OR tenant_id = %(tenant)s) "
        "ORDER BY tenant_id, handler_name",
        {"tenant": tenant_id},
    )
    return [Pin(**_named(_PIN, row)) for row in rows]


def delete_pin(tx: Transaction, tenant_id: str, handler: str) -> bool:
    """Let workers of any version have tasks of a handler; False if there was no pin."""
    return bool(tx.execute("DELETE FROM version_pins WHERE tenant_id = %s AND handler_name = %s", (tenant_id, handler)))


def insert_rule(tx: Transaction, rule: Rule) -> None:
    """Store a new rule."""
    values = tuple(getattr(rule, name.strip()) for name in _RULE.split(","))
    tx.execute(f"INSERT INTO routing_rules ({_RULE}) VALUES (" + ", ".join(["%s"] * len(values)) + ")", values)


def rules(tx: Transaction, tenant_id: str | None, handler: str | None) -> list[Rule]:
    """List rules in the order in which they count, of one tenant and handler or of all."""
    found = tx.query(
        f"SELECT {_RULE} FROM routing_rules WHERE (%(tenant)s IS NULL OR tenant_id = %(tenant)s) "
        "AND (%(handler)s IS NULL OR handler_name = %(handler)s) ORDER BY priority DESC, id",
        {"tenant": tenant_id, "handler": handler},
    )
    return [Rule(**_named(_RULE, row)) for row in found]


def rule(tx: Transaction, rule_id: UUID) -> Rule | None:
    """Read one rule; None if there is none."""
    found = tx.query(f"SELECT {_RULE} FROM routing_rules WHERE id = %s", (rule_id,))
    return Rule(**_named(_RULE, found[0])) if found else None


def delete_rule(tx: Transaction, rule_id: UUID) -> bool:
    """Remove a rule; False if there is none. Tasks stay where it has led them."""
    return bool(tx.execute("DELETE FROM routing_rules WHERE id = %s", (rule_id,)))


def handlers_and_routes(tx: Transaction, within: timedelta) -> tuple[frozenset[str], Routes]:
    """Read which handlers living Celery workers know, and all rules that are enabled, as the core asks for them.

    Args:
        within: How long ago the last heartbeat of one that lives may be.
    """
    [(handlers, enabled)] = tx.ask(_HANDLERS_AND_ROUTES, (within,))
    return frozenset(handlers), routes_of(enabled)


def routes_of(enabled: Iterable[Sequence[Any]] | None) -> Routes:
    """Read `ROUTES`."""
    found: dict[tuple[str, str], list[Route]] = {}
    for tenant_id, handler_name, match_queue, queue_override in enabled or ():
        route = Route(match_queue=match_queue, queue_override=queue_override)
        found.setdefault((tenant_id, handler_name), []).append(route)
    return found


def _named(columns: str, row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip([name.strip() for name in columns.split(",")], row, strict=True))
