"""What a doctor asks the database of an installation; each look is bounded and changes nothing."""

from datetime import timedelta
from typing import Any, Final

import psycopg2
from psycopg2 import errors

from orchestrator.errors import OrchestratorError
from orchestrator.store.session import Transaction, first_line

ROW = dict[str, Any]
_PATIENCE: Final = "SET LOCAL statement_timeout = '5s'"
_COUNTED: Final = 1000
"""Things are counted up to that many."""


class CannotLook(OrchestratorError):
    """A look took too long, or what it reads is locked; the transaction is of no use any more."""


def _rows(tx: Transaction, statement: str, names: str, parameters: Any = None) -> list[ROW]:
    try:
        tx.execute(_PATIENCE)
        return [dict(zip(names.split(), row, strict=True)) for row in tx.query(statement, parameters)]
    except (errors.QueryCanceled, errors.LockNotAvailable) as problem:
        raise CannotLook(first_line(problem)) from problem


def server(tx: Transaction) -> ROW:
    """Tell about the server: its time, whether it takes writes, and its connections."""
    return _rows(
        tx,
        "SELECT clock_timestamp(), pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on', "
        "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
        "current_setting('max_connections')::int",
        "now is_read_only connections max_connections",
    )[0]


def long_transactions(tx: Transaction, older_than: timedelta) -> list[ROW]:
    """List transactions of this database that have been open for long; they keep dead rows from being removed."""
    return _rows(
        tx,
        "SELECT pid, coalesce(application_name, ''), state, clock_timestamp() - xact_start FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - %s "
        "AND backend_type = 'client backend' ORDER BY xact_start LIMIT 10",
        "pid application state age",
        (older_than,),
    )


def held_tables(tx: Transaction, longer_than: timedelta) -> list[ROW]:
    """List tables that a session has kept from writers for long."""
    return _rows(
        tx,
        "SELECT DISTINCT ON (a.pid) a.pid, coalesce(a.application_name, ''), l.relation::regclass::text, "
        "clock_timestamp() - a.xact_start FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
        "WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid() "
        "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') "
        "AND l.relation >= 16384 AND a.xact_start < clock_timestamp() - %s ORDER BY a.pid, l.relation LIMIT 10",
        "pid application table age",
        (longer_than,),
    )


def prepared_transactions(tx: Transaction, older_than: timedelta) -> list[ROW]:
    """List transactions that were prepared for a two-phase commit and left open."""
    return _rows(
        tx,
        "SELECT gid, clock_timestamp() - prepared FROM pg_prepared_xacts WHERE database = current_database() "
        "AND prepared < clock_timestamp() - %s ORDER BY prepared LIMIT 10",
        "name age",
        (older_than,),
    )


def idle_slots(tx: Transaction, keeping: int) -> list[ROW]:
    """List replication slots that nobody reads from and that keep more than so many bytes of the log."""
    return _rows(
        tx,
        "SELECT slot_name, kept FROM (SELECT slot_name, CASE WHEN NOT pg_is_in_recovery() THEN "
        "pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END AS kept "
        "FROM pg_replication_slots WHERE NOT active) slots WHERE kept > %s ORDER BY kept DESC LIMIT 10",
        "name bytes",
        (keeping,),
    )


def failing_archive(tx: Transaction) -> str | None:
    """Name the part of the log that could not be archived; None if the last one could, or if none is."""
    found = _rows(
        tx,
        "SELECT last_failed_wal FROM pg_stat_archiver WHERE current_setting('archive_mode') <> 'off' "
        "AND last_failed_time > coalesce(last_archived_time, '-infinity')",
        "name",
    )
    return found[0]["name"] if found else None


def failing_disk(tx: Transaction) -> str | None:
    """Say why the server cannot write to its disk; None if it can.

    Sorting more than fits into the memory it is given writes a temporary file, and nothing that stays.
    """
    try:
        tx.execute("SET LOCAL work_mem = '64kB'")
        tx.query("SELECT count(*) FROM (SELECT repeat(n::text, 20) FROM generate_series(1, 20000) n ORDER BY 1) sorted")
    except psycopg2.Error as problem:
        if isinstance(problem, (errors.DiskFull, errors.IoError)):
            return first_line(problem)
        raise
    return None


def bloated_tables(tx: Transaction, dead: int) -> list[ROW]:
    """List tables with more dead rows than that, and more dead than living ones."""
    return _rows(
        tx,
        "SELECT relname, n_dead_tup, n_live_tup FROM pg_stat_user_tables "
        "WHERE n_dead_tup > %s AND n_dead_tup > n_live_tup ORDER BY n_dead_tup DESC LIMIT 10",
        "table dead live",
        (dead,),
    )


def backlog(tx: Transaction) -> list[ROW]:
    """List the ready steps by queue and handler: how many, the oldest, and the most hints that one has had."""
    return _rows(
        tx,
        "SELECT queue, handler, count(*), clock_timestamp() - min(ready_at), max(hints) FROM steps "
        "WHERE state = 'ready' GROUP BY queue, handler ORDER BY queue, handler LIMIT 1000",
        "queue handler count age hints",
    )


def stuck_claims(tx: Transaction, silent_for: timedelta, over_by: timedelta) -> list[ROW]:
    """List claims whose worker process is silent, or whose time was over long ago."""
    return _rows(
        tx,
        "SELECT s.instance_id, s.block_id, s.worker_name, clock_timestamp() - s.claimed_at FROM steps s "
        "LEFT JOIN workers w ON w.id = s.worker_id WHERE s.state = 'claimed' AND ("
        "(s.worker_id IS NOT NULL AND (w.id IS NULL OR w.heartbeat_at < clock_timestamp() - %s)) "
        "OR s.expires_at < clock_timestamp() - %s) ORDER BY s.claimed_at LIMIT 10",
        "instance block worker age",
        (silent_for, over_by),
    )


def overdue(tx: Transaction, late_by: timedelta) -> int:
    """Count timers whose moment passed long ago, up to a thousand."""
    return _count(tx, "timers WHERE due_at < statement_timestamp() - %s", (late_by,))


def overdue_letters(tx: Transaction, late_by: timedelta) -> int:
    """Count letters between instances that nobody has delivered, up to a thousand."""
    return _count(tx, "letters WHERE due_at < statement_timestamp() - %s", (late_by,))


def overdue_pushes(tx: Transaction, late_by: timedelta) -> int:
    """Count tasks that should have been pushed long ago, up to a thousand."""
    return _count(tx, "task_pushes WHERE due_at < statement_timestamp() - %s", (late_by,))


def overdue_schedules(tx: Transaction, late_by: timedelta) -> int:
    """Count cron schedules that should have fired long ago, up to a thousand."""
    return _count(tx, "schedules WHERE due_at < statement_timestamp() - %s", (late_by,))


def webhooks(tx: Transaction, late_by: timedelta) -> list[ROW]:
    """List addresses to which events are late by so much, or were given up, up to a thousand of each address."""
    return _rows(
        tx,
        "SELECT url, count(*) FILTER (WHERE status <> 'parked'), count(*) FILTER (WHERE status = 'parked'), "
        "max(last_error) FROM (SELECT url, status, last_error, row_number() OVER (PARTITION BY url, status) AS nth "
        "FROM webhook_outbox WHERE status = 'parked' OR due_at < statement_timestamp() - %s) found WHERE nth <= 1000 "
        "GROUP BY url ORDER BY url LIMIT 10",
        "url late parked error",
        (late_by,),
    )


def parked(tx: Transaction) -> tuple[int, ROW | None]:
    """Count instances that the engine has put aside, up to a thousand, and give the one parked last."""
    parked_ones = "instances WHERE state = 'paused' AND parked_reason IS NOT NULL"
    newest = _rows(
        tx, f"SELECT id, parked_reason FROM {parked_ones} ORDER BY listed_at DESC LIMIT 1", "instance reason"
    )
    return (_count(tx, parked_ones), newest[0]) if newest else (0, None)


def silent_workers(tx: Transaction, dead_after: timedelta) -> list[ROW]:
    """List worker processes that should live and do not say so, unless another one has taken the name."""
    return _rows(
        tx,
        "SELECT w.name, clock_timestamp() - w.heartbeat_at, (SELECT count(*) FROM steps s WHERE s.worker_id = w.id "
        "AND s.state = 'claimed') FROM workers w WHERE w.kind = 'celery' AND NOT w.is_draining "
        "AND w.heartbeat_at < clock_timestamp() - %s AND NOT EXISTS (SELECT 1 FROM workers o WHERE o.name = w.name "
        "AND o.started_at > w.started_at) ORDER BY w.name LIMIT 10",
        "name age claims",
        (dead_after,),
    )


def has_week(tx: Transaction, weeks_ahead: int) -> bool:
    """Tell whether the history has a partition for a week to come."""
    found = tx.query(
        "SELECT to_regclass('attempts_' || to_char(date_trunc('week', clock_timestamp() AT TIME ZONE 'UTC') "
        "+ make_interval(weeks => %s), 'YYYY_MM_DD')) IS NOT NULL",
        (weeks_ahead,),
    )
    return bool(found[0][0])


def _count(tx: Transaction, rows: str, parameters: Any = None) -> int:
    found = _rows(tx, f"SELECT count(*) FROM (SELECT 1 FROM {rows} LIMIT {_COUNTED}) AS found", "count", parameters)
    return int(found[0]["count"])
