"""Values that are stored apart: written with the rows they belong to, and put back when those are read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson

from orchestrator.store.apart import is_marker, may_hold_marker, ref_of
from orchestrator.store.sealing import PrivateAlike, private_alike
from orchestrator.store.session import Transaction, to_json

# The text of an unchanged value is compared, and not written again.
PUT = (
    "INSERT INTO payloads AS p (instance_id, key, value) VALUES {} ON CONFLICT (instance_id, key) DO UPDATE "
    "SET value = EXCLUDED.value WHERE p.value::text <> EXCLUDED.value::text"
)
ROW = "(%s, %s, %s)"
WITH_OUTPUTS = (
    "WITH gone AS ({} RETURNING o.instance_id, o.output_ref) DELETE FROM payloads WHERE (instance_id, key) IN "
    "(SELECT instance_id, output_ref FROM gone WHERE output_ref LIKE 'output:%')"
)
"""Around a deletion of output rows `o`: what is stored apart of them goes, too."""

Row = tuple[UUID, str, PrivateAlike]
Rows = list[Row]


def row(owner: UUID, key: str, text: str) -> Row:
    """Give the row of one value; sealed, an unchanged one still compares as equal."""
    return (owner, key, private_alike(f"{owner}/{key}", text))


def rows(owner: UUID, apart: Mapping[str, str]) -> Rows:
    """Give the rows of what goes apart of one instance."""
    return [row(owner, key, text) for key, text in apart.items()]


def put(tx: Transaction, wanted: Rows) -> None:
    """Store values apart; a value of the same key gives way."""
    if wanted:
        tx.execute(PUT.format(tx.values(ROW, sorted(wanted))))


def whole_outputs(tx: Transaction, found: Sequence[tuple[UUID, Any]]) -> list[Any]:
    """Give outputs as they were written, from what their rows hold: pairs of instance and value.

    None for what was removed between the two looks.
    """
    refs = {(owner, ref_of(value)) for owner, value in found if is_marker(value)}
    if not refs:
        return [value for _, value in found]
    values = _read(tx, refs)
    return [values.get((owner, ref_of(value))) if is_marker(value) else value for owner, value in found]


def has_parts_apart(data: Any) -> bool:
    """Tell whether a part of the data of a context is stored apart."""
    return isinstance(data, dict) and any(map(is_marker, data.values()))


def whole_data(tx: Transaction, found: Sequence[tuple[UUID, Any]]) -> list[Any]:
    """Give the data of contexts as they were written, from what their rows hold: pairs of instance and value."""
    found = [(owner, tx.unlocked(data, owner)) for owner, data in found]
    refs = {
        (owner, ref_of(member))
        for owner, data in found
        if isinstance(data, dict)
        for member in data.values()
        if is_marker(member)
    }
    if not refs:
        return [data for _, data in found]
    values = _read(tx, refs)
    return [
        {name: values.get((owner, ref_of(m))) if is_marker(m) else m for name, m in data.items()}
        if isinstance(data, dict)
        else data
        for owner, data in found
    ]


def whole_texts(tx: Transaction, found: Sequence[tuple[str, str | None]]) -> list[str | None]:
    """Give the data of contexts as `whole_data` does, as JSON text: from pairs of instance and the text its row holds.

    What has nothing apart is not read.
    """
    marked = [(UUID(owner), orjson.loads(text)) for owner, text in found if text is not None and may_hold_marker(text)]
    if not marked:
        return [text for _, text in found]
    whole = iter(whole_data(tx, marked))
    return [to_json(next(whole)) if text is not None and may_hold_marker(text) else text for _, text in found]


def _read(tx: Transaction, refs: Iterable[tuple[UUID, str]]) -> dict[tuple[UUID, str], Any]:
    keys = tx.values("(%s::uuid, %s::text)", sorted(refs))
    found = tx.query(f"SELECT instance_id, key, value FROM payloads WHERE (instance_id, key) IN (VALUES {keys})")
    return {(row[0], row[1]): row[2] for row in found}
