"""Dead letters: failed instances of a tenant, and what they failed of."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from orchestrator.store.session import Transaction

MAX_LOOKED_AT: Final = 10_000
"""Failed instances that are grouped, the newest ones: a group that is older than all of them is not shown."""

# The last attempt that did not end well is what an instance failed of; it may fail without one, as of an expression.
_LAST_ATTEMPT: Final = (
    "LEFT JOIN LATERAL (SELECT block_id, handler, outcome, error FROM attempts WHERE instance_id = i.id "
    "AND outcome IN ('failed', 'timed_out', 'lost') ORDER BY ended_at DESC, id DESC LIMIT 1) AS a ON true"
)
_FAILURES: Final = (
    "WITH failed AS (SELECT id, sequence_id, settled_at FROM instances WHERE tenant_id = %s AND state = 'failed' "
    f"ORDER BY listed_at DESC, id DESC LIMIT {MAX_LOOKED_AT}) "
    "SELECT i.id, i.sequence_id, i.settled_at, a.block_id, a.handler, a.outcome, a.error FROM failed i "
    f"{_LAST_ATTEMPT} ORDER BY i.settled_at DESC, i.id DESC"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an instance has failed; block, handler and error are None when no attempt of it did."""

    instance_id: UUID
    sequence_id: UUID
    failed_at: datetime
    block_id: str | None
    handler: str | None
    outcome: str | None
    error: dict[str, Any] | None


def failures(tx: Transaction, tenant_id: str) -> list[Failure]:
    """Read why the failed instances of a tenant have failed, the newest first."""
    return [_failure_of(row) for row in tx.query(_FAILURES, (tenant_id,))]


def last_failure(tx: Transaction, instance_id: UUID, tenant_id: str) -> tuple[str, Failure] | None:
    """Read in which state an instance is and what it has failed of last, if ever; None if there is none."""
    rows = tx.query(
        "SELECT i.state, i.id, i.sequence_id, i.updated_at, a.block_id, a.handler, a.outcome, a.error FROM instances i "
        f"{_LAST_ATTEMPT} WHERE i.id = %s AND i.tenant_id = %s",
        (instance_id, tenant_id),
    )
    return (rows[0][0], _failure_of(rows[0][1:])) if rows else None


def _failure_of(row: Any) -> Failure:
    return Failure(
        instance_id=row[0],
        sequence_id=row[1],
        failed_at=row[2],
        block_id=row[3],
        handler=row[4],
        outcome=row[5],
        error=row[6] if isinstance(row[6], dict) else None,
    )
