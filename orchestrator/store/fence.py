"""Writing and committing in one message what was decided on something that may have changed meanwhile.

Statements that come in one message are one transaction by themselves. The first ones look whether everything is as it
was seen, and otherwise set a mark (`MARK`) that keeps all others from writing; the last one asks for it. So a decision
needs no answer before it is committed (docs/decisions/0057, 0060).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestrator.store.prepared import MARK, MAY_WRITE, form
from orchestrator.store.session import Transaction

MOST_APART: Final = timedelta(seconds=5)
"""How far the moment of a decision may be from the one it is written at; on the way to the store it takes some time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of a decision that was written without locking first.

    Args:
        is_current: Whether everything was as it had been seen, and all is committed; else nothing is.
        now: The store's time.
    """

    is_current: bool
    now: datetime


def unless(rows: str) -> str:
    """Give the end of a statement that sets the mark if a common table expression has no rows.

    >>> unless("held")
    "SELECT set_config('orchestrator.is_current', 'no', true) WHERE NOT EXISTS (SELECT FROM held)"
    """
    return f"SELECT set_config('{MARK}', 'no', true) WHERE NOT EXISTS (SELECT FROM {rows})"


_IS_NOW = form(
    "is_now",
    ["timestamptz", "interval"],
    "WITH near AS (SELECT WHERE $1 BETWEEN clock_timestamp() - $2 AND clock_timestamp() + $2) " + unless("near"),
)


def expect_now(tx: Transaction, moments: Iterable[datetime]) -> None:
    """Look whether moments that this process has told are about now; if one is not, nothing behind this is written.

    The clock that carries the store's time forward stands still while the machine sleeps, and does not know if the
    store's own is set.
    """
    for moment in moments:
        tx.tell(_IS_NOW, (moment, MOST_APART))


_WAS_CURRENT = form("was_current", [], f"SELECT {MAY_WRITE}, clock_timestamp()")


def committed(tx: Transaction) -> Written:
    """Send what waits, and be committed; tells whether it was written."""
    [(is_current, now)] = tx.end_with(_WAS_CURRENT, ())
    return Written(is_current=is_current, now=now)
