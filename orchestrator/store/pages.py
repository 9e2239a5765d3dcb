"""Pages of lists: instances as clients read them, of the columns that are shown and no more."""

from datetime import datetime
from typing import Any, Final, NamedTuple

from orchestrator.store import listing, payloads
from orchestrator.store.instances import ATTEMPT, DUE_AT
from orchestrator.store.listing import Filter
from orchestrator.store.prepared import form
from orchestrator.store.session import Transaction


class Listed(NamedTuple):
    """An instance as a list shows it, under the names of `Instance`, `Profile` and `Record`.

    A page has a hundred of them, so it is the row itself. Ids are the text they are shown as; of data and configuration
    it has the JSON text, which is handed on as it is.
    """

    id: str
    sequence_id: str
    tenant_id: str
    namespace: str
    state: str
    priority: int
    timezone: str
    parked_reason: str | None
    run_id: str | None
    current_step: str | None
    current_step_started_at: datetime | None
    total_steps: int
    dry_run: bool
    dry_run_auto_approve: bool
    started_at: datetime | None
    created_at: datetime
    updated_at: datetime
    session_id: str | None
    budget: Any
    injected: int
    data: str | None
    config: str | None
    metadata: Any
    audit: Any
    idempotency_key: str | None
    concurrency_key: str | None
    max_concurrency: int | None
    parent_instance_id: str | None
    due_at: datetime | None
    attempt: int


_SHOWN_AS_TEXT: Final = ("id", "sequence_id", "run_id", "session_id", "parent_instance_id", "data", "config")
_OF_CONTEXT: Final = Listed._fields[Listed._fields.index("data") : Listed._fields.index("due_at")]
_COLUMNS: Final = ", ".join(
    {"due_at": DUE_AT, "attempt": ATTEMPT}.get(name)
    or f"{'c' if name in _OF_CONTEXT else 'i'}.{name}{'::text' if name in _SHOWN_AS_TEXT else ''}"
    for name in Listed._fields
)
# Orders are asked for that only the indexes of ids have: whatever the planner has last seen, it looks nowhere else. It
# would take a tenant that is new to it for one instance, and look for each of the page among all that the tenant has.
# The policies of contexts and timers ask in the same way, so one plan suits all tenants.
_SHOW: Final = form(
    "show_page",
    [],
    f"SELECT {_COLUMNS} FROM unnest({listing.PAGE}) AS page (id) CROSS JOIN LATERAL (SELECT * FROM instances i "
    "WHERE i.id BETWEEN page.id AND page.id ORDER BY i.id LIMIT 1) AS i CROSS JOIN LATERAL (SELECT * FROM contexts c "
    "WHERE c.instance_id BETWEEN i.id AND i.id ORDER BY c.instance_id LIMIT 1) AS c "
    "ORDER BY i.updated_at DESC, i.id DESC",
    suits_all=True,
)


def find(tx: Transaction, which: Filter, *, offset: int, limit: int) -> list[Listed]:
    """List instances, newest change first; only what the page shows is read in full.

    The transaction is one of a single moment (`instances.freeze`). The page is found by a statement of its own: in one
    with what it shows, a planner that has last seen few instances would find the page anew for each of them.
    """
    listing.find_page(tx, which, offset=offset, limit=limit)
    tx.later(listing.IN_ORDER)
    rows = [_opened(tx, Listed._make(row)) for row in tx.ask(_SHOW, ())]
    whole = payloads.whole_texts(tx, [(row.id, row.data) for row in rows])
    return [row if row.data is data else row._replace(data=data) for row, data in zip(rows, whole, strict=True)]


def _opened(tx: Transaction, row: Listed) -> Listed:
    data, config = tx.opened_json(row.data, row.id), tx.opened_json(row.config, row.id)
    return row if data is row.data and config is row.config else row._replace(data=data, config=config)
