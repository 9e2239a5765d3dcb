"""What the reconciler sees to: whether a crash has left something behind, and partitions of the history, one for each
week, made ahead."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from orchestrator.store.session import Transaction

WEEKS_AHEAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What there is that a crash may have left behind.

    Args:
        claims: Steps are claimed; their workers may be dead.
        of_deleted: A deleted sequence has left instances; whoever was to remove them may be dead.
    """

    claims: bool
    of_deleted: bool


def leftovers(tx: Transaction) -> Leftovers:
    """Tell what there is that a crash may have left behind."""
    [(claims, of_deleted)] = tx.query(
        "SELECT EXISTS (SELECT 1 FROM steps WHERE state = 'claimed'), "
        "EXISTS (SELECT 1 FROM deleted_sequences WHERE has_instances)"
    )
    return Leftovers(claims=claims, of_deleted=of_deleted)


def week_of(moment: datetime) -> date:
    """Give the Monday that begins the week of a moment."""
    day = moment.date()
    return day - timedelta(days=day.weekday())


def make_partitions(tx: Transaction) -> int:
    """Create the partitions of this week and the next ones that are missing; returns how many were made.

    A week whose rows have already gone to the default partition is left there.
    """
    this_week = week_of(tx.now())
    return sum(make_partition(tx, this_week + timedelta(weeks=ahead)) for ahead in range(WEEKS_AHEAD + 1))


def make_partition(tx: Transaction, monday: date) -> int:
    """Create the partition of the week that begins then, if it is missing; returns how many were made."""
    name = f"attempts_{monday:%Y_%m_%d}"
    if tx.query("SELECT 1 FROM pg_class WHERE relname = %s AND relnamespace = 'public'::regnamespace", (name,)):
        return 0
    following = monday + timedelta(weeks=1)
    taken = "SELECT 1 FROM attempts_default WHERE ended_at >= %s AND ended_at < %s LIMIT 1"
    if tx.query(taken, (monday, following)):
        return 0
    tx.execute(f"CREATE TABLE {name} PARTITION OF attempts FOR VALUES FROM (%s) TO (%s)", (monday, following))
    tx.execute(
        f"CREATE INDEX {name}_lately_idx ON {name} USING brin (ended_at) "
        "WITH (pages_per_range = 32, autosummarize = on)"
    )
    return 1
