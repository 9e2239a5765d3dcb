"""What those who follow instances read: which have changed since the last look, and the output rows they have not seen.

All output rows of one commit carry the version that the instance has after it, and versions rise from commit to commit.
So "later than this version" leaves nothing out. Ids do not say that: they are made before the commit, by processes
whose clocks differ. They only narrow down where in the table the new rows are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from orchestrator.core.asides import RESULT_REF
from orchestrator.core.ids import moment_bits
from orchestrator.store import payloads
from orchestrator.store.instances import with_results
from orchestrator.store.prepared import array_of, form
from orchestrator.store.reading import HIDDEN_ROWS
from orchestrator.store.session import Transaction

SKEW: Final = timedelta(minutes=1)
"""How much older than the change before it an id may look: clocks that differ, a lock that was waited for."""
NO_ID: Final = UUID(int=0)
NEWEST_ID: Final = UUID(int=2**128 - 1)
MAX_ROWS: Final = 200
MAX_BYTES: Final = 1024 * 1024
"""What is read of one instance at once; a larger row is read alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where an instance stands.

    Args:
        version: Rises with every change of the instance.
        updated_at: When it was changed last.
    """

    id: UUID
    version: int
    state: str
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Which output rows of an instance somebody has seen.

    Those of commits up to `version`, of that one only up to the id `row`. Many rows are read page by page, in the order
    of their ids: then also those with ids up to `at`, of commits up to `until`.

    >>> Cursor.read(str(Cursor(version=7, row=UUID(int=5)))) == Cursor(version=7, row=UUID(int=5))
    True
    """

    version: int = -1
    row: UUID = NO_ID
    until: int | None = None
    at: UUID = NO_ID

    def __str__(self) -> str:
        seen = f"{self.version}.{self.row.hex}"
        return seen if self.until is None else f"{seen}.{self.until}.{self.at.hex}"

    @classmethod
    def read(cls, written: str) -> "Cursor":
        """Read a cursor; raises ValueError if it is none."""
        parts = written.split(".")
        if len(parts) not in {2, 4} or len(written) > MAX_CURSOR or not written.isascii():
            raise ValueError(f"{written[:MAX_CURSOR]!r} is no cursor")
        version, row = _version(parts[0]), UUID(parts[1])
        if len(parts) == 2:
            return cls(version=version, row=row)
        return cls(version=version, row=row, until=_version(parts[2]), at=UUID(parts[3]))

    def begin(self, until: int) -> "Cursor":
        """Give the cursor that reads on page by page, up to a version."""
        if self.until is not None:
            return replace(self, until=min(self.until, until))
        return replace(self, until=until, at=UUID(int=max(0, self.newest.int - _SKEW_BITS)))

    @property
    def newest(self) -> UUID:
        """An id that has been seen, the newest one known; `NO_ID` if none is."""
        return self.at if self.row == NEWEST_ID or self.at != NO_ID else self.row

    def has_all(self, version: int) -> bool:
        """Tell whether all rows of commits up to a version have been seen."""
        return self.until is None and (version, NEWEST_ID) <= (self.version, self.row)

    def end(self, version: int, newest: UUID) -> "Cursor":
        """Give the cursor of somebody who has seen all rows of commits up to a version.

        Args:
            newest: The id of the last of them, or one before it.
        """
        return Cursor(version=version, row=NEWEST_ID, at=newest)


MAX_CURSOR: Final = 200
_SKEW_BITS: Final = int(SKEW.total_seconds() * 1000) << 80


def _version(written: str) -> int:
    if not -1 <= int(written) < 2**63:
        raise ValueError(f"{written!r} is no version")
    return int(written)


def floor_of(updated_at: datetime) -> UUID:
    """Give an id below all those of rows that came after a change."""
    return UUID(int=moment_bits(updated_at - SKEW))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An output row.

    Args:
        view: As clients see it; None for rows that they do not see.
    """

    version: int
    id: UUID
    size: int
    view: dict[str, Any] | None


def head(tx: Transaction, instance_id: UUID, tenant_id: str | None) -> Head | None:
    """Say where an instance stands; None if there is none, or it belongs to another tenant than the one given."""
    rows = tx.query("SELECT id, version, state, updated_at, tenant_id FROM instances WHERE id = %s", (instance_id,))
    if not rows or tenant_id not in {None, rows[0][4]}:
        return None
    return _head_of(rows[0])


def _head_of(row: Sequence[Any]) -> Head:
    return Head(id=row[0], version=row[1], state=row[2], updated_at=row[3])


_LOOK = form(
    "look_at_followed",
    ["uuid[]", "bigint[]"],
    "SELECT v.id, i.version, i.state, i.updated_at FROM unnest($1, $2) AS v (id, version) "
    "LEFT JOIN instances i ON i.id = v.id WHERE i.version IS DISTINCT FROM v.version",
)


def look(tx: Transaction, known: Mapping[UUID, int]) -> dict[UUID, Head | None]:
    """Say where instances stand that have changed since their known version; None for those that are gone."""
    rows = tx.ask(_LOOK, (array_of(list(known)), array_of(list(known.values()))))
    return {row[0]: None if row[1] is None else _head_of(row) for row in rows}


_COLUMNS = (
    "instance_id, version, id, block_id, output, output_ref, output_size, attempt, created_at, iteration, "
    "sum(output_size) OVER (ORDER BY {order}) - output_size AS before"
)
# A value that does not fit is not even fetched from where PostgreSQL keeps large ones.
_SHOWN = (
    "o.instance_id, o.version, o.id, o.block_id, CASE WHEN o.before < {most} THEN o.output END, o.output_ref, "
    "o.output_size, o.attempt, o.created_at, o.iteration, o.before"
)


def later_rows(tx: Transaction, known: Iterable[Head], *, max_bytes: int = MAX_BYTES) -> dict[UUID, list[Row] | None]:
    """Read the output rows of instances that came after their known versions, in the order of their commits.

    None for an instance with more of them than are read at once; one without new rows is left out.
    """
    since = tx.values("(%s::uuid, %s::uuid, %s::bigint)", [(h.id, floor_of(h.updated_at), h.version) for h in known])
    rows = tx.query(
        f"SELECT {_SHOWN.format(most=max_bytes)} FROM (VALUES {since}) AS v (id, floor, version) "
        f"CROSS JOIN LATERAL (SELECT {_COLUMNS.format(order='version, id')} FROM outputs "
        "WHERE instance_id = v.id AND id > v.floor AND version > v.version "
        f"ORDER BY version, id LIMIT {MAX_ROWS + 1}) AS o ORDER BY o.instance_id, o.version, o.id"
    )
    by_owner: dict[UUID, list[Any]] = {}
    for row in rows:
        by_owner.setdefault(row[0], []).append(row)
    return {owner: _whole(tx, found, max_bytes) for owner, found in by_owner.items()}


def _whole(tx: Transaction, rows: list[Any], max_bytes: int) -> list[Row] | None:
    if len(rows) > MAX_ROWS or rows[-1][10] + rows[-1][6] > max_bytes:
        return None
    return _rows_of(tx, rows)


def page(tx: Transaction, instance_id: UUID, cursor: Cursor) -> tuple[list[Row], bool]:
    """Read the next output rows behind a cursor with `until`, by id; and say whether there may be more of them."""
    rows = tx.query(
        f"SELECT {_SHOWN.format(most=MAX_BYTES)} FROM (SELECT {_COLUMNS.format(order='id')} FROM outputs "
        "WHERE instance_id = %s AND id > %s AND version <= %s AND (version, id) > (%s, %s::uuid) "
        f"ORDER BY id LIMIT {MAX_ROWS}) AS o ORDER BY o.id",
        (instance_id, cursor.at, cursor.until, cursor.version, cursor.row),
    )
    fitting = [row for row in rows if row[10] < MAX_BYTES]
    return _rows_of(tx, fitting), len(rows) == MAX_ROWS or len(fitting) < len(rows)


def _rows_of(tx: Transaction, rows: Sequence[Any]) -> list[Row]:
    whole = payloads.whole_outputs(tx, [(row[0], row[4]) for row in rows])
    shown = with_results([(*row[2:4], output, *row[5:10]) for row, output in zip(rows, whole, strict=True)])
    views = {row[0]: row for row in shown if row[3] not in HIDDEN_ROWS and row[3] != RESULT_REF}
    return [
        Row(version=row[1], id=row[2], size=row[6], view=_view(row[0], views[row[2]]) if row[2] in views else None)
        for row in rows
    ]


def _view(instance_id: UUID, row: Sequence[Any]) -> dict[str, Any]:
    names = ("id", "block_id", "output", "output_ref", "output_size", "attempt", "created_at")
    return {"instance_id": instance_id, **dict(zip(names, row, strict=False))}
