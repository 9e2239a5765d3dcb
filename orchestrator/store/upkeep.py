"""Partitions of the history: one for each week, made ahead."""

from datetime import date, datetime, timedelta

from orchestrator.store.session import Transaction

WEEKS_AHEAD = 2


def week_of(moment: datetime) -> date:
    """Give the Monday that begins the week of a moment."""
    day = moment.date()
    return day - timedelta(days=day.weekday())


def make_partitions(tx: Transaction) -> int:
    """Create the partitions of this week and the next ones that are missing; returns how many were made.

    A week whose rows have already gone to the default partition is left there.
    """
    this_week = week_of(tx.now())
    return sum(_make_partition(tx, this_week + timedelta(weeks=ahead)) for ahead in range(WEEKS_AHEAD + 1))


def _make_partition(tx: Transaction, monday: date) -> int:
    name = f"attempts_{monday:%Y_%m_%d}"
    if tx.query("SELECT 1 FROM pg_class WHERE relname = %s AND relnamespace = 'public'::regnamespace", (name,)):
        return 0
    following = monday + timedelta(weeks=1)
    taken = "SELECT 1 FROM attempts_default WHERE ended_at >= %s AND ended_at < %s LIMIT 1"
    if tx.query(taken, (monday, following)):
        return 0
    tx.execute(f"CREATE TABLE {name} PARTITION OF attempts FOR VALUES FROM (%s) TO (%s)", (monday, following))
    return 1
