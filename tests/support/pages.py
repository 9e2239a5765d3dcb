"""The page of a list by itself: which instances it shows, without what it shows of them."""

from uuid import UUID

from orchestrator.store import listing
from orchestrator.store.listing import Filter
from orchestrator.store.session import Transaction


def page(tx: Transaction, which: Filter, *, offset: int, limit: int) -> list[UUID]:
    """Name the instances that a page shows, newest change first; see `listing.find_page`."""
    listing.find_page(tx, which, offset=offset, limit=limit)
    return [row[0] for row in tx.query(f"SELECT unnest({listing.PAGE})")]
