"""Circuit breakers: how the executions of a handler of a tenant have ended (contract, sequences §13.6, api §17.3).

A breaker is closed while it has no `opened_at`, open until its cool-down is over, half open from then on: the state is
computed, so no clock has to turn it. Its row is locked last of all, and only by a commit that changes it: a success
finds a breaker with nothing to forget, and a failure an open one, without touching either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from orchestrator.core.changes import AttemptRecorded
from orchestrator.core.outcomes import FailureKind
from orchestrator.store.prepared import prepared
from orchestrator.store.session import Transaction
from sequences.handlers import has_breaker

FAILURE_THRESHOLD: Final = 5
COOLDOWN_SECS: Final = 60
ON_OPEN: Final = "auto"
MAX_HANDLER_BYTES: Final = 1024
"""Handlers with longer names, of definitions from when these were taken, have no breaker: the name is in an index."""


@dataclass(slots=True)
class Tally:
    """What a commit has to say of a handler.

    Args:
        has_succeeded: Whether an execution has succeeded.
        failures: Executions that have failed after the last one that succeeded.
    """

    has_succeeded: bool = False
    failures: int = 0


Tallies = dict[tuple[str, str], Tally]
"""By tenant and handler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The breaker of a handler.

    Args:
        failure_count: Failures in a row.
        opened_at: None while it is closed.
        on_open: What becomes of steps while it is open: `auto`, `fail` or `defer`.
    """

    tenant_id: str
    handler: str
    state: str
    failure_count: int
    failure_threshold: int
    cooldown_secs: int
    on_open: str
    opened_at: datetime | None


_IS_COOLING = "{0}.opened_at + {0}.cooldown_secs * interval '1 second' > clock_timestamp()"
_STATE = f"CASE WHEN b.opened_at IS NULL THEN 'closed' WHEN {_IS_COOLING.format('b')} THEN 'open' ELSE 'half_open' END"
_READ = ", ".join(_STATE if each.name == "state" else f"b.{each.name}" for each in fields(Breaker))
_NAMES = [each.name for each in fields(Breaker)]
_INSERT = (
    "INSERT INTO circuit_breakers AS b "
    "(tenant_id, handler, failure_count, opened_at, failure_threshold, cooldown_secs, on_open) "
)
_DEFAULTS = f"{FAILURE_THRESHOLD}, {COOLDOWN_SECS}, '{ON_OPEN}'"

SUCCEEDED: Final = prepared(
    "breaker_succeeded",
    "tenant_id text, handler text",
    f"{_INSERT} SELECT v.tenant_id, v.handler, 0, NULL, {_DEFAULTS} FROM {{rows}} "
    "WHERE NOT EXISTS (SELECT FROM circuit_breakers c WHERE c.tenant_id = v.tenant_id AND c.handler = v.handler "
    "AND c.failure_count = 0 AND c.opened_at IS NULL) "
    "ON CONFLICT (tenant_id, handler) DO UPDATE SET failure_count = 0, opened_at = NULL",
    joins=True,
)
FAILED: Final = prepared(
    "breaker_failed",
    "tenant_id text, handler text, failures int",
    f"{_INSERT} SELECT v.tenant_id, v.handler, v.failures, "
    f"CASE WHEN v.failures >= {FAILURE_THRESHOLD} THEN clock_timestamp() END, {_DEFAULTS} FROM {{rows}} "
    "WHERE NOT EXISTS (SELECT FROM circuit_breakers c WHERE c.tenant_id = v.tenant_id AND c.handler = v.handler "
    f"AND {_IS_COOLING.format('c')}) "
    "ON CONFLICT (tenant_id, handler) DO UPDATE SET failure_count = b.failure_count + EXCLUDED.failure_count, "
    f"opened_at = CASE WHEN {_IS_COOLING.format('b')} THEN b.opened_at WHEN b.opened_at IS NOT NULL "
    "OR b.failure_count + EXCLUDED.failure_count >= b.failure_threshold THEN clock_timestamp() END",
    joins=True,
)


def count(tallies: Tallies, tenant_id: str, ended: AttemptRecorded) -> None:
    """Take an execution into account, if there was one and its end says something about whoever the handler calls.

    What never reached the handler (params that could not be resolved, answers from a cache, dry runs), or has not been
    answered by it (its worker died, its step was withdrawn), says nothing.
    """
    if ended.token is None or not has_breaker(ended.handler) or len(ended.handler.encode()) > MAX_HANDLER_BYTES:
        return
    match ended.outcome:
        case "completed":
            tallies[tenant_id, ended.handler] = Tally(has_succeeded=True)
        case "failed" if (ended.error or {}).get("kind") != FailureKind.INPUT:
            tallies.setdefault((tenant_id, ended.handler), Tally()).failures += 1
        case "timed_out":
            tallies.setdefault((tenant_id, ended.handler), Tally()).failures += 1
        case _:
            pass


def record(tx: Transaction, tallies: Tallies) -> None:
    """Let breakers know how executions have ended; sent with what comes next."""
    for (tenant_id, handler), tally in sorted(tallies.items(), key=lambda item: item[0]):
        if tally.has_succeeded:
            tx.put(SUCCEEDED, [(tenant_id, handler)])
        if tally.failures:
            tx.put(FAILED, [(tenant_id, handler, tally.failures)])


def _breaker_of(row: Sequence[Any]) -> Breaker:
    return Breaker(**dict(zip(_NAMES, row, strict=True)))


def find(tx: Transaction, tenant_id: str | None, *, offset: int, limit: int) -> list[Breaker]:
    """List the breakers of one tenant, or of all, by tenant and handler."""
    rows = tx.query(
        f"SELECT {_READ} FROM circuit_breakers b WHERE (%(tenant)s IS NULL OR b.tenant_id = %(tenant)s) "
        "ORDER BY b.tenant_id, b.handler LIMIT %(limit)s OFFSET %(offset)s",
        {"tenant": tenant_id, "limit": limit, "offset": offset},
    )
    return [_breaker_of(row) for row in rows]


def get(tx: Transaction, tenant_id: str, handler: str) -> Breaker | None:
    """Read the breaker of a handler; None if the tenant has none."""
    rows = tx.query(
        f"SELECT {_READ} FROM circuit_breakers b WHERE b.tenant_id = %s AND b.handler = %s", (tenant_id, handler)
    )
    return _breaker_of(rows[0]) if rows else None


def configure(
    tx: Transaction, tenant_id: str, handler: str, *, failure_threshold: int, cooldown_secs: int, on_open: str
) -> Breaker:
    """Set how the breaker of a handler works; what it has counted stays."""
    rows = tx.query(
        f"{_INSERT} VALUES (%s, %s, 0, NULL, %s, %s, %s) ON CONFLICT (tenant_id, handler) DO UPDATE SET "
        "failure_threshold = EXCLUDED.failure_threshold, cooldown_secs = EXCLUDED.cooldown_secs, "
        f"on_open = EXCLUDED.on_open RETURNING {_READ}",
        (tenant_id, handler, failure_threshold, cooldown_secs, on_open),
    )
    return _breaker_of(rows[0])


def reset(tx: Transaction, tenant_id: str, handler: str) -> None:
    """Close the breaker of a handler, if there is one."""
    tx.execute(
        "UPDATE circuit_breakers SET failure_count = 0, opened_at = NULL WHERE tenant_id = %s AND handler = %s",
        (tenant_id, handler),
    )
