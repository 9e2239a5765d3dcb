"""What steps have done outside of their own flow, one row for each act, and the keys by which emissions are told apart.

An act's row is committed with the act. Its key is the step and the run of its instance, so a step that is run again
because its worker died before the report finds what it has done. A retry of the instance is another run; a migration is
not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.core.model import NodeKey
from orchestrator.store.sealing import private
from orchestrator.store.session import Transaction

_COLUMNS = (
    "id, tenant_id, instance_id, block_id, iteration, run_id, kind, state, destination_fingerprint, idempotency_key, "
    "request_sha256, provider_receipt_id, attempt, answer, created_at"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectDone:
    """An act of a step that has taken effect.

    Args:
        kind: What sort of act; `message` for an emitted event.
        destination_fingerprint: SHA-256 of where it went.
        idempotency_key: The key its author gave it; None without one.
        request_sha256: SHA-256 of what was asked for.
        provider_receipt_id: What came of it: the id of the instance that was started.
        answer: What the handler is told, again and again.
    """

    id: UUID
    tenant_id: str
    instance_id: UUID
    key: NodeKey
    run_id: UUID
    kind: str
    destination_fingerprint: str
    request_sha256: str
    provider_receipt_id: str
    attempt: int
    answer: dict[str, Any]
    created_at: datetime
    idempotency_key: str | None = None


def _effect_of(row: Sequence[Any]) -> EffectDone:
    return EffectDone(
        id=row[0],
        tenant_id=row[1],
        instance_id=row[2],
        key=NodeKey(row[3], tuple(row[4])),
        run_id=row[5],
        kind=row[6],
        destination_fingerprint=row[8],
        idempotency_key=row[9],
        request_sha256=row[10],
        provider_receipt_id=row[11],
        attempt=row[12],
        answer=row[13],
        created_at=row[14],
    )


def of_step(tx: Transaction, instance_id: UUID, key: NodeKey, run_id: UUID) -> EffectDone | None:
    """Read what a step has done in this run of its instance; None if nothing yet."""
    rows = tx.query(
        f"SELECT {_COLUMNS} FROM effects WHERE instance_id = %s AND block_id = %s AND iteration = %s::int[] "
        "AND run_id = %s",
        (instance_id, key.block_id, list(key.iteration), run_id),
    )
    return _effect_of(rows[0]) if rows else None


def insert(tx: Transaction, done: EffectDone) -> bool:
    """Store the row of an act, in the transaction of the act; False if the step has done it before.

    Waits for a concurrent transaction in which the same step acts: a worker that is taken for dead may be alive.
    """
    inserted = tx.execute(
        f"INSERT INTO effects ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s::int[], " + ", ".join(["%s"] * 10) + ") "
        "ON CONFLICT DO NOTHING",
        (
            done.id,
            done.tenant_id,
            done.instance_id,
            done.key.block_id,
            list(done.key.iteration),
            done.run_id,
            done.kind,
            "committed",
            done.destination_fingerprint,
            done.idempotency_key,
            done.request_sha256,
            done.provider_receipt_id,
            done.attempt,
            private(done.answer),
            done.created_at,
        ),
    )
    return bool(inserted)


def find(tx: Transaction, instance_id: UUID) -> list[EffectDone]:
    """List what the steps of an instance have done, in order."""
    rows = tx.query(f"SELECT {_COLUMNS} FROM effects WHERE instance_id = %s ORDER BY id", (instance_id,))
    return [_effect_of(row) for row in rows]


def reserve_emission(tx: Transaction, tenant_id: str, scope: str, key: str, instance_id: UUID) -> UUID | None:
    """Take the key of an emission; the instance that was started under it, None if it was free.

    Waits for a concurrent transaction that takes the same key.

    Args:
        scope: The id of the emitting instance, or `tenant`.
    """
    taken = tx.execute(
        "INSERT INTO emission_keys (tenant_id, scope, key, instance_id) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (tenant_id, scope, key, instance_id),
    )
    if taken:
        return None
    rows = tx.query(
        "SELECT instance_id FROM emission_keys WHERE tenant_id = %s AND scope = %s AND key = %s",
        (tenant_id, scope, key),
    )
    first: UUID = rows[0][0]
    return first
