"""Which columns are sealed, and sealing them again: with a new key, or for the first time.

Rows are looked at in pages, in the order of their keys, while everything runs. Of a page only those rows are locked
that are not sealed with the newest key and that nobody else holds; the others are met in the next round. So nothing
here ever waits for a lock, and no work is lost when it is broken off: what is sealed already is passed over.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import orjson

from orchestrator.encryption import Vault, is_sealed
from orchestrator.errors import ConfigurationError
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.rows import NODE_MEMORY_IN_SQL
from orchestrator.store.sealing import (
    DETAILS_IN_SQL,
    PrivateText,
    Sealable,
    opened_json,
    private_alike,
    private_beside,
    private_json,
    private_of,
)
from orchestrator.store.session import Transaction
from orchestrator.store.tables import metadata

PAGE: Final = 500
ROUNDS: Final = 20
PAUSE_SECONDS: Final = 0.2
"""After a round in which rows were found: others may hold some."""
_Key = tuple[Any, ...]
_Mark = Callable[[Mapping[str, Any], str], Sealable]
"""Makes the text of a column sealable, given the key of its row."""


def _free(_key: Mapping[str, Any], text: str) -> Sealable:
    return private_json(text)


def _of_instance(key: Mapping[str, Any], text: str) -> Sealable:
    return private_of(key["instance_id"], text)


def _alike(key: Mapping[str, Any], text: str) -> Sealable:
    return private_alike(f"{key['instance_id']}/{key['key']}", text)


def _beside(names: Sequence[str], _key: Mapping[str, Any], text: str) -> Sealable:
    return private_beside(orjson.loads(text), names)


def _text(_key: Mapping[str, Any], text: str) -> Sealable:
    return PrivateText(text)


SEALED: Final[Mapping[str, Mapping[str, _Mark]]] = {
    "sequences": {"document": _free},
    "contexts": {"data": _of_instance, "config": _free, "audit": _free},
    "nodes": {"memory": partial(_beside, NODE_MEMORY_IN_SQL)},
    "steps": {"output": _free, "memory": _free, "checkpoint": _free, "former": _free},
    "outputs": {"output": _free},
    "payloads": {"value": _alike},
    "attempts": {"error": _free},
    "transitions": {"details": partial(_beside, DETAILS_IN_SQL)},
    "state_values": {"value": _free},
    "items": {"item": _free},
    "signals": {"payload": _free},
    "sessions": {"data": _free},
    "checkpoints": {"data": _free},
    "injections": {"blocks": _free},
    "letters": {"body": _free},
    "triggers": {"config": _free, "secret": _text, "previous_secret": _text},
    "step_logs": {"message": _text},
    "effects": {"answer": _free},
    "credentials": {"value": _text, "refresh_token": _text},
    "webhook_outbox": {"payload": _free},
    "dispatch_configs": {"secret": _text, "second_secret": _text},
    "correlation_events": {"payload": _free},
    "plugins": {"config": _free},
    "worker_commands": {"payload": _free},
}
PLAIN: Final[Mapping[str, str]] = {
    "contexts.metadata": "searched by SQL",
    "schedules.metadata": "becomes the metadata of instances, which are searched by SQL",
    "instances.budget": "numbers",
    "step_logs.ts": "times",
}
"""Columns of JSON that are not sealed, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one look at all rows came to.

    Args:
        sealed: Rows sealed anew.
        left: Rows that others held.
    """

    sealed: int
    left: int


def seal_everything(store: PostgresStore, vault: Vault) -> int:
    """Look at all rows until none is left that is not sealed with the newest key; returns how many were sealed.

    Raises:
        ConfigurationError: There are new ones in every round: other processes seal with another key, or with none.
    """
    total = 0
    for _ in range(ROUNDS):
        done = seal_again(store, vault)
        total += done.sealed
        if not done.left and not done.sealed:
            return total
        time.sleep(PAUSE_SECONDS)
    raise ConfigurationError("other processes do not use this key yet: restart them with it, then run this again")


def seal_again(store: PostgresStore, vault: Vault) -> Round:
    """Look once at every row, and seal with the newest key what is not."""
    sealed = left = 0
    for table, columns in SEALED.items():
        for page in _pages(store, table, columns, vault):
            done = _seal_page(store, table, columns, page, vault)
            sealed, left = sealed + done, left + len(page) - done
    return Round(sealed=sealed, left=left)


def _key_names(table: str) -> list[str]:
    return [column.name for column in metadata.tables[table].primary_key.columns]


def _pages(store: PostgresStore, table: str, columns: Mapping[str, _Mark], vault: Vault) -> Iterator[list[_Key]]:
    """Give the keys of rows that are not sealed with the newest key, page by page."""
    names = _key_names(table)
    keys, texts = ", ".join(names), ", ".join(f'"{column}"::text' for column in columns)
    last: _Key | None = None
    while True:
        where = "" if last is None else f"WHERE ({keys}) > ({', '.join(['%s'] * len(names))}) "
        with store.transaction() as tx:
            rows = tx.query(f"SELECT {keys}, {texts} FROM {table} {where}ORDER BY {keys} LIMIT {PAGE}", last)
        stale = [row[: len(names)] for row in rows if any(_is_stale(text, vault) for text in row[len(names) :])]
        if stale:
            yield stale
        if len(rows) < PAGE:
            return
        last = rows[-1][: len(names)]


def _is_stale(text: str | None, vault: Vault) -> bool:
    if text is None:
        return False
    return not vault.is_current(text.removeprefix('{"_sealed":').removeprefix('"'))


def _seal_page(
    store: PostgresStore, table: str, columns: Mapping[str, _Mark], page: Sequence[_Key], vault: Vault
) -> int:
    names = _key_names(table)
    row_of = "(" + ", ".join(["%s"] * len(names)) + ")"
    keys, texts = ", ".join(names), ", ".join(f'"{column}"::text' for column in columns)
    with store.transaction() as tx:
        rows = tx.query(
            f"SELECT {keys}, {texts} FROM {table} WHERE ({keys}) IN ({tx.values(row_of, page)}) "
            f"ORDER BY {keys} FOR UPDATE SKIP LOCKED"
        )
        for row in rows:
            _seal_row(tx, table, columns, dict(zip(names, row, strict=False)), row[len(names) :], vault)
    return len(rows)


def _seal_row(
    tx: Transaction,
    table: str,
    columns: Mapping[str, _Mark],
    key: Mapping[str, Any],
    texts: Sequence[str | None],
    vault: Vault,
) -> None:
    owner: UUID | None = key.get("instance_id")
    written: dict[str, Sealable] = {}
    for (column, mark), text in zip(columns.items(), texts, strict=True):
        if text is not None and _is_stale(text, vault):
            plain = _opened(text, vault) if mark is _text else opened_json(text, owner, vault)
            written[column] = mark(key, plain)
    if written:
        assignments = ", ".join(f'"{column}" = %s' for column in written)
        where = " AND ".join(f"{name} = %s" for name in key)
        tx.later(f"UPDATE {table} SET {assignments} WHERE {where}", (*written.values(), *key.values()))


def _opened(text: str, vault: Vault) -> str:
    return vault.open(text) if is_sealed(text) else text
