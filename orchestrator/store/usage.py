"""What models have used for tenants: one row for each finished step that reported it.

A row is written with the outcome that reports it, so it is there once, and only if the outcome is. It stays when its
instance is removed: it is what a bill is checked against.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from orchestrator.core.changes import UsageRecorded
from orchestrator.core.model import Instance
from orchestrator.store.session import Transaction

ADD: Final = (
    "INSERT INTO usage_events (tenant_id, created_at, id, instance_id, sequence_id, block_id, kind, provider, model, "
    "input_tokens, output_tokens) VALUES {}"
)
ROW: Final = "(" + ", ".join(["%s"] * 11) + ")"
MAX_ROWS: Final = 10_000
_OF_TENANT = (
    "FROM usage_events WHERE tenant_id = %(tenant)s AND created_at >= %(start)s "
    "AND (%(end)s::timestamptz IS NULL OR created_at <= %(end)s)"
)
_SUMS = "count(*), sum(input_tokens)::bigint, sum(output_tokens)::bigint"


class Grouping(StrEnum):
    """What sums can be made for; the value is the name on the wire."""

    STEP = "step"
    INSTANCE = "instance"
    SEQUENCE = "sequence"
    PROVIDER = "provider"


_KEYS: Final = {
    Grouping.STEP: "sequence_id::text, block_id",
    Grouping.INSTANCE: "sequence_id::text, instance_id::text",
    Grouping.SEQUENCE: "NULL, sequence_id::text",
    Grouping.PROVIDER: "NULL, provider",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """A sum over rows of one kind and model.

    Args:
        key: What the sum is for, if it is for less than the tenant; a provider may be unknown (None).
        sequence_id: Whose step or instance the key names.
    """

    kind: str
    model: str
    events: int
    input_tokens: int
    output_tokens: int
    key: str | None = None
    sequence_id: str | None = None


def row(instance: Instance, change: UsageRecorded) -> tuple[Any, ...]:
    """Give the row of a record."""
    return (
        instance.tenant_id,
        change.created_at,
        change.id,
        instance.id,
        instance.sequence_id,
        change.block_id,
        change.kind,
        change.provider,
        change.model,
        change.input_tokens,
        change.output_tokens,
    )


def sums(tx: Transaction, tenant_id: str, start: datetime, end: datetime | None) -> list[Used]:
    """Sum up by kind and model, in this order. No end: until now."""
    rows = tx.query(
        f"SELECT kind, model, {_SUMS} {_OF_TENANT} GROUP BY 1, 2 ORDER BY 1, 2",
        {"tenant": tenant_id, "start": start, "end": end},
    )
    return [_used(each) for each in rows]


def grouped(tx: Transaction, tenant_id: str, start: datetime, end: datetime | None, by: Grouping) -> list[Used]:
    """Sum up by what is asked for, and by kind and model within; the largest sums first, 10,000 at the most."""
    rows = tx.query(
        f"SELECT kind, model, {_SUMS}, {_KEYS[by]} {_OF_TENANT} GROUP BY 1, 2, 6, 7 "
        f"ORDER BY sum(input_tokens + output_tokens) DESC, 6, 7, 1, 2 LIMIT {MAX_ROWS}",
        {"tenant": tenant_id, "start": start, "end": end},
    )
    return [_used(each) for each in rows]


def _used(found: Sequence[Any]) -> Used:
    kind, model, events, read, written, *of = found
    sequence_id, key = of or (None, None)
    return Used(
        kind=kind,
        model=model,
        events=events,
        input_tokens=read,
        output_tokens=written,
        key=key,
        sequence_id=sequence_id,
    )
