"""What a doctor asks the database of an installation; each look is bounded and changes nothing."""

from datetime import timedelta
from typing import Any, Final

from orchestrator.store.session import Transaction

ROW = dict[str, Any]
_PATIENCE: Final = "SET LOCAL statement_timeout = '5s'"


def _rows(tx: Transaction, statement: str, names: str, parameters: Any = None) -> list[ROW]:
    tx.execute(_PATIENCE)
    return [dict(zip(names.split(), row, strict=True)) for row in tx.query(statement, parameters)]


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
    found = tx.query(
        "SELECT count(*) FROM (SELECT 1 FROM timers WHERE due_at < clock_timestamp() - %s LIMIT 1000) AS late",
        (late_by,),
    )
    return int(found[0][0])
