"""Counts that many processes add to, for metrics: what a service does is shown by the API that is scraped."""

from collections.abc import Mapping
from typing import Final

from orchestrator.store.session import Transaction

COMPACTED: Final = "orch8_loop_outputs_compacted"
"""Kept in sixteen rows, by the last digit of the instance: it is raised in the transactions of instances, which would
wait for one another at a single row."""


def add(tx: Transaction, counts: Mapping[str, int]) -> None:
    """Raise counters; the last statement of a transaction, as others wait for these rows. In order of name."""
    rows = [(name, count) for name, count in sorted(counts.items()) if count]
    if rows:
        tx.execute(
            f"INSERT INTO counters (name, value) VALUES {tx.values('(%s, %s)', rows)} "
            "ON CONFLICT (name) DO UPDATE SET value = counters.value + EXCLUDED.value"
        )


def read(tx: Transaction) -> dict[str, int]:
    """Read all counters; one that was never raised is missing."""
    return dict(tx.query("SELECT name, value FROM counters"))
