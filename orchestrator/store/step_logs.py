"""What workers have logged while they ran steps, as they reported it with an outcome."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from orchestrator.core.changes import LineLogged
from orchestrator.core.sections import rfc3339
from orchestrator.encryption import is_sealed
from orchestrator.store.sealing import PrivateText
from orchestrator.store.session import Transaction, to_json

MAX_SHOWN: Final = 10_000
ADD: Final = "INSERT INTO step_logs (instance_id, id, block_id, ts, level, message) VALUES {}"
ROW: Final = "(%s, %s, %s, %s, %s, %s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line.

    Args:
        ts: When it was written, as the worker said it; anything JSON can say.
    """

    ts: Any
    level: str
    message: str


def row(instance_id: UUID, change: LineLogged) -> tuple[Any, ...]:
    """Write a line that is stored with the outcome of its attempt."""
    line = change.line
    ts = to_json(rfc3339(line.at))
    return (instance_id, change.id, change.block_id, ts, line.level, _private(line.message))


def _private(message: str) -> PrivateText:
    """Give a message to be sealed; one that looks sealed already would be opened when it is read."""
    return PrivateText(f" {message}" if is_sealed(message) else message)


def insert(
    tx: Transaction, instance_id: UUID, block_id: str, lines: Sequence[Line], new_id: Callable[[], UUID]
) -> None:
    """Store the lines of one report, in their order; nothing if the instance is gone."""
    rows = [(instance_id, new_id(), block_id, to_json(line.ts), line.level, _private(line.message)) for line in lines]
    if rows:
        written = tx.values("(%s::uuid, %s::uuid, %s, %s::json, %s, %s)", rows)
        tx.execute(
            "INSERT INTO step_logs (instance_id, id, block_id, ts, level, message) "
            f"SELECT v.* FROM (VALUES {written}) AS v (owner) JOIN instances i ON i.id = v.owner"
        )


def find(tx: Transaction, instance_id: UUID, limit: int = MAX_SHOWN) -> list[tuple[Any, ...]]:
    """Read the newest lines of an instance, the oldest of them first.

    Returns:
        Rows of block_id, ts, level, message.
    """
    rows = tx.query(
        "SELECT block_id, ts, level, message FROM step_logs WHERE instance_id = %s ORDER BY id DESC LIMIT %s",
        (instance_id, limit),
    )
    return [(*row[:3], tx.opened_text(row[3])) for row in reversed(rows)]
