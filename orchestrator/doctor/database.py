"""The examination of the database server: whatever slows it, stops it or lets it fill up."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from orchestrator.doctor.words import age_of, megabytes
from orchestrator.findings import Finding, error, warning
from orchestrator.store import examination
from orchestrator.store.session import Transaction

LONG_TRANSACTION = timedelta(minutes=1)
"""Ours end after 15 s; longer ones keep dead rows of the hot tables alive."""
LONG_LOCK = timedelta(seconds=3)
"""So long our statements wait for a lock."""
DEAD_ROWS = 50_000
CLOCK_SECONDS = 2.0
FULL = 0.9
SLOT_BYTES = 1 << 30
"""Of the log that a replication slot keeps although nobody reads from it."""

_ALL_TAKEN = ("too many clients", "too many connections", "remaining connection slots")


def unreachable(problem: str) -> Finding:
    """Say why PostgreSQL cannot be connected to."""
    if any(words in problem for words in _ALL_TAKEN):
        remedy = "end sessions that nobody needs (pg_stat_activity), raise max_connections, or put PgBouncer in between"
        return error("connections_exhausted", problem, remedy)
    remedy = "start PostgreSQL, or correct DATABASE_URL; if it ends by itself, read its log: is its disk full?"
    return error("postgres_unreachable", problem, remedy)


def about_server(tx: Transaction) -> Iterator[Finding]:
    """Look at what the server says of itself, and at its clock."""
    asked = datetime.now(UTC)
    found = examination.server(tx)
    answered = datetime.now(UTC)
    if found["is_read_only"]:
        yield error("read_only", "PostgreSQL takes no writes", "name the primary in DATABASE_URL; look for a full disk")
    if found["connections"] > FULL * found["max_connections"]:
        what = f"{found['connections']} of {found['max_connections']} connections are in use"
        yield warning("connections", what, "raise max_connections, or put PgBouncer in between")
    ahead = max((found["now"] - answered).total_seconds(), (asked - found["now"]).total_seconds())
    if ahead > CLOCK_SECONDS:
        what = f"the clocks of this machine and of PostgreSQL differ by {ahead:.1f} s"
        yield warning("clock", what, "let both follow one time server (NTP)")
    failed = examination.failing_archive(tx)
    if failed is not None:
        what = f"PostgreSQL cannot archive {failed}: there is no later point to restore to, and its log grows"
        yield error("archive_fails", what, "read its log for what archive_command says; is the archive full?")


def about_sessions(tx: Transaction) -> Iterator[Finding]:
    """Look for what others hold: transactions, locks, and the log."""
    for each in examination.long_transactions(tx, LONG_TRANSACTION):
        what = f"process {each['pid']} ({each['application']}) has had a transaction open for {age_of(each['age'])}"
        yield warning("long_transaction", what, f"end it: SELECT pg_terminate_backend({each['pid']})")
    for each in examination.held_tables(tx, LONG_LOCK):
        what = (
            f"process {each['pid']} ({each['application']}) has kept table {each['table']} from writers for "
            f"{age_of(each['age'])}"
        )
        yield error("table_locked", what, f"wait for it, or end it: SELECT pg_terminate_backend({each['pid']})")
    for each in examination.prepared_transactions(tx, LONG_TRANSACTION):
        what = f"prepared transaction {each['name']!r} has been open for {age_of(each['age'])}"
        yield warning("prepared_transaction", what, f"COMMIT PREPARED or ROLLBACK PREPARED '{each['name']}'")
    for each in examination.idle_slots(tx, SLOT_BYTES):
        what = f"nobody reads from replication slot {each['name']!r}, which keeps {megabytes(each['bytes'])} of the log"
        yield warning("idle_slot", what, f"start its reader, or SELECT pg_drop_replication_slot('{each['name']}')")


def about_tables(tx: Transaction) -> Iterator[Finding]:
    """Look for tables that are not cleaned up, and for a week without a table of its own."""
    for each in examination.bloated_tables(tx, DEAD_ROWS):
        what = f"table {each['table']} has {each['dead']} dead rows and {each['live']} living ones"
        yield warning("dead_rows", what, f"VACUUM {each['table']}; look for what keeps autovacuum from it")


def about_disk(tx: Transaction) -> Iterator[Finding]:
    """Have a little written where the server keeps temporary files; the transaction is of no use afterwards."""
    problem = examination.failing_disk(tx)
    if problem is not None:
        what = f"PostgreSQL cannot write to its disk: {problem}"
        yield error("disk_full", what, "free some space where its data lies; work goes on by itself")
