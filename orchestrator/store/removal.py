"""Deleting a version of a sequence, and the ended instances that are bound to it.

The version goes first, in a transaction of its own. Whoever needs it (a new instance, a child, a migration, a retry)
holds its row until his commit (`definitions.hold`), so either the deletion sees his instance and is refused, or he
finds no version. A foreign key would say the same, at the price of a look-up for each instance, and would demand that
all instances go in the transaction of their sequence: that may be hours of work, and one lock for each.

What is left then has ended, cannot be reopened, and is removed in small transactions. A process that dies in between
leaves the rest to the reconciler.
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

from orchestrator.store import schedules
from orchestrator.store.session import Transaction

AT_ONCE: Final = 100
"""Instances that one transaction removes."""
OF_INSTANCES: Final = (
    "attempts",
    "checkpoints",
    "contexts",
    "effects",
    "emission_keys",
    "idempotency_keys",
    "injections",
    "items",
    "metadata_entries",
    "nodes",
    "outputs",
    "payloads",
    "schedule_runs",
    "signals",
    "state_values",
    "step_logs",
    "steps",
    "task_events",
    "timers",
    "transitions",
)
"""Every table whose rows go with their instance; those of usage and of webhooks name it and stay: what was used has
been paid for, and what was promised is sent. Named here: to import `store/tables/` is a fifth of a process's start."""
_LOCKED_BY_OTHERS: Final = "steps"
"""The table whose rows others lock without holding the instance; always in ascending order of their id."""


def remove_sequence(tx: Transaction, sequence_id: UUID) -> bool:
    """Delete a version, and remember what its id has stood for: processes may still have it compiled.

    Waits for all who hold it. Its schedules go with it: first, as a schedule that fires is locked before its sequence;
    and those that were stored meanwhile. False if it is gone already.
    """
    schedules.delete_of_sequence(tx, sequence_id)
    gone = tx.query("DELETE FROM sequences WHERE id = %s RETURNING content_hash", (sequence_id,))
    if gone:
        tx.execute(
            "INSERT INTO deleted_sequences (id, content_hash, has_instances) VALUES (%s, %s, true) "
            "ON CONFLICT (id) DO UPDATE SET content_hash = EXCLUDED.content_hash, has_instances = true",
            (sequence_id, gone[0][0]),
        )
        schedules.delete_of_sequence(tx, sequence_id)
    return bool(gone)


def count_open(tx: Transaction, sequence_id: UUID) -> int:
    """Count the instances of a version that have not ended."""
    rows = tx.query(
        "SELECT count(*) FROM instances WHERE sequence_id = %s AND settled_at IS NULL",
        (sequence_id,),
    )
    count: int = rows[0][0]
    return count


def remove_of_deleted(tx: Transaction, sequence_id: UUID | None = None) -> int:
    """Remove some of the instances that a deleted version has left; returns how many, 0 when none is left.

    Args:
        sequence_id: Which version; None for any, unless another process is at it.
    """
    which = tx.query(
        "SELECT id FROM deleted_sequences WHERE has_instances AND (%(id)s IS NULL OR id = %(id)s) "
        "ORDER BY id LIMIT 1 FOR UPDATE" + ("" if sequence_id is not None else " SKIP LOCKED"),
        {"id": sequence_id},
    )
    if not which:
        return 0
    owner = which[0][0]
    rows = tx.query("SELECT id FROM instances WHERE sequence_id = %s ORDER BY id LIMIT %s FOR UPDATE", (owner, AT_ONCE))
    remove_instances(tx, [row[0] for row in rows])
    if len(rows) < AT_ONCE:
        tx.execute("UPDATE deleted_sequences SET has_instances = false WHERE id = %s", (owner,))
    return len(rows)


def remove_ended(tx: Transaction, older_than: timedelta) -> int:
    """Remove some instances that ended long ago; returns how many, fewer than `AT_ONCE` when none is left.

    One whose parent is open stays, as the parent may still ask for it; one that somebody holds comes later.
    """
    rows = tx.query(
        "SELECT i.id FROM instances i WHERE i.settled_at < statement_timestamp() - %s AND NOT EXISTS "
        "(SELECT 1 FROM instances p WHERE p.id = i.parent_id AND p.settled_at IS NULL) "
        "ORDER BY i.settled_at, i.id LIMIT %s FOR UPDATE OF i SKIP LOCKED",
        (older_than, AT_ONCE),
    )
    remove_instances(tx, sorted(row[0] for row in rows))
    return len(rows)


def remove_instances(tx: Transaction, ids: list[UUID]) -> None:
    """Delete instances and everything of them. The caller holds their locks."""
    if not ids:
        return
    tx.query(f"SELECT 1 FROM {_LOCKED_BY_OTHERS} WHERE instance_id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE", (ids,))
    for table in OF_INSTANCES:
        tx.execute(f"DELETE FROM {table} WHERE instance_id = ANY(%s::uuid[])", (ids,))
    tx.execute("DELETE FROM instances WHERE id = ANY(%s::uuid[])", (ids,))


def is_taken(tx: Transaction, sequence_id: UUID, content_hash: str) -> bool:
    """Tell whether an id has stood for other content before, or its former instances are still being removed."""
    rows = tx.query(
        "SELECT 1 FROM deleted_sequences WHERE id = %s AND (has_instances OR content_hash <> %s)",
        (sequence_id, content_hash),
    )
    return bool(rows)
