"""Letters that wait to be delivered. They are written and removed by `apply`, with the decisions they belong to."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from orchestrator.core.states import InstanceState
from orchestrator.store.session import Transaction

GRACE = timedelta(milliseconds=500)
"""How long the process that has written a letter has to deliver it itself; then it is the postman's."""


def waiting(tx: Transaction, recipients: Sequence[UUID]) -> dict[UUID, int]:
    """Count the letters of some instances; those without any are left out."""
    return dict(
        tx.query(
            "SELECT recipient_id, count(*) FROM letters WHERE recipient_id = ANY(%s::uuid[]) GROUP BY recipient_id",
            (list(recipients),),
        )
    )


def overdue(tx: Transaction, limit: int) -> list[UUID]:
    """Name instances with letters that nobody has delivered, those that have waited longest first.

    Args:
        limit: Of letters; several may be for one instance.
    """
    rows = tx.query(
        "SELECT recipient_id FROM letters WHERE due_at <= statement_timestamp() ORDER BY due_at LIMIT %s", (limit,)
    )
    return list(dict.fromkeys(row[0] for row in rows))


def drop_undeliverable(tx: Transaction, recipients: Sequence[UUID]) -> int:
    """Remove letters to instances that have ended or do not exist; returns how many.

    Locks the instances in ascending order of id, so that none is reopened meanwhile.
    """
    states = tx.query(
        "SELECT id, state FROM instances WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE", (list(recipients),)
    )
    gone = set(recipients) - {row[0] for row in states if not InstanceState(row[1]).is_terminal}
    return tx.execute("DELETE FROM letters WHERE recipient_id = ANY(%s::uuid[])", (sorted(gone),)) if gone else 0


def postpone(tx: Transaction, recipient: UUID, by: timedelta) -> None:
    """Try the letters of an instance again later; one that is being opened at this moment is passed over."""
    tx.execute(
        "WITH waiting AS MATERIALIZED (SELECT id FROM letters WHERE recipient_id = %s ORDER BY id "
        "FOR UPDATE SKIP LOCKED) UPDATE letters l SET due_at = clock_timestamp() + %s FROM waiting w "
        "WHERE l.recipient_id = %s AND l.id = w.id",
        (recipient, by, recipient),
    )
