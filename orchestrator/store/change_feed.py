"""The change feed: audit rows of a tenant in an order in which nothing ever appears behind what has been read.

Neither ids nor times give such an order: both are made before the commit, and a transaction that takes long commits
rows behind others that were read meanwhile. So each row carries the number of the transaction that has written it, and
only rows are shown whose transactions are older than all that still run: nothing can come any more among those.

A transaction gets its number with its first lock, so rows of one instance follow each other as its commits did, and of
two transactions that touch different instances at one moment either may come first.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from orchestrator.core.sections import rfc3339
from orchestrator.store.session import Transaction

MAX_CURSOR: Final = 500
_HORIZON: Final = "((pg_snapshot_xmin(pg_current_snapshot()))::text)::bigint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A row of the feed, by which reading goes on behind it.

    Args:
        xid: Of the transaction that has written it; None where a client has left it out.
    """

    xid: int | None
    id: UUID
    created_at: datetime

    def __str__(self) -> str:
        members = {"created_at": rfc3339(self.created_at), "id": str(self.id), "xid": self.xid}
        return urlsafe_b64encode(orjson.dumps(members)).rstrip(b"=").decode()

    @classmethod
    def read(cls, written: str) -> "Place":
        """Read a cursor; raises ValueError if it is none.

        >>> Place.read("e30")
        Traceback (most recent call last):
        ...
        ValueError: malformed change cursor
        """
        try:
            members = orjson.loads(urlsafe_b64decode(written[:MAX_CURSOR] + "=" * (-len(written) % 4)))
            place = cls(
                xid=members.get("xid"),
                id=UUID(members["id"]),
                created_at=datetime.fromisoformat(members["created_at"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError("malformed change cursor") from error
        is_number = place.xid is None or (type(place.xid) is int and 0 <= place.xid < 2**63)
        if not is_number or place.created_at.tzinfo is None or len(written) > MAX_CURSOR:
            raise ValueError("malformed change cursor")
        return place


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An audit row: `shown` is id, tenant_id, event_type, from_state, to_state, block_id, details, created_at."""

    place: Place
    instance_id: UUID
    shown: Sequence[Any]


def after(tx: Transaction, tenant_id: str, place: Place | None, limit: int) -> list[Row]:
    """Read the rows of a tenant behind a place, or the first ones."""
    xid, row_id = (-1, UUID(int=0)) if place is None else (_xid_of(tx, tenant_id, place), place.id)
    rows = tx.query(
        "SELECT xid, instance_id, id, tenant_id, event_type, from_state, to_state, block_id, details, created_at "
        f"FROM transitions WHERE tenant_id = %s AND (xid, id) > (%s, %s::uuid) AND xid < {_HORIZON} "
        "ORDER BY xid, id LIMIT %s",
        (tenant_id, xid, row_id, limit),
    )
    return [
        Row(place=Place(xid=row[0], id=row[2], created_at=row[9]), instance_id=row[1], shown=row[2:]) for row in rows
    ]


def _xid_of(tx: Transaction, tenant_id: str, place: Place) -> int:
    """Find the transaction of a row that is named by its time and id; of one that is gone, an earlier one."""
    if place.xid is not None:
        return place.xid
    rows = tx.query(
        "SELECT coalesce((SELECT xid FROM transitions WHERE tenant_id = %(tenant)s AND id = %(id)s LIMIT 1), "
        "(SELECT min(xid) - 1 FROM transitions WHERE tenant_id = %(tenant)s AND created_at >= %(at)s), 0)",
        {"tenant": tenant_id, "id": place.id, "at": place.created_at},
    )
    xid: int = rows[0][0]
    return xid


def newest(tx: Transaction, tenants: Iterable[str]) -> dict[str, tuple[int, UUID]]:
    """Say how far the feeds of some tenants go; a tenant without rows is left out."""
    rows = tx.query(
        "SELECT v.tenant_id, t.xid, t.id FROM unnest(%s::text[]) AS v (tenant_id) CROSS JOIN LATERAL "
        f"(SELECT xid, id FROM transitions WHERE tenant_id = v.tenant_id AND xid < {_HORIZON} "
        "ORDER BY xid DESC, id DESC LIMIT 1) AS t",
        (list(tenants),),
    )
    return {row[0]: (row[1], row[2]) for row in rows}
