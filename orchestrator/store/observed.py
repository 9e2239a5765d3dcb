"""Counts of what has happened, for metrics, over all processes and restarts.

What is in the rows of the history is counted from them: up to a mark it is in the counters already, and whoever looks
adds what came after it. The mark goes on in small slices (`fold`), so a look costs what has happened since, and each
row is counted once. Readers share the mark's lock, so that it does not move while they add up.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from orchestrator.store import counters, installation
from orchestrator.store.histograms import BOUNDS, bucket_name, sum_name
from orchestrator.store.session import Transaction

FOLD_AFTER: Final = timedelta(seconds=30)
"""How far the mark may stay behind before it goes on."""

_OPEN_FOR = "interval '20 seconds'"
"""Longer than any transaction lives (statement and idle time-outs are 15 s): older rows are all visible."""
_MARK = "metrics_until"
"""Fact of the installation: what had happened until this moment is in the counters."""
_PATIENCE = "SET LOCAL statement_timeout = '2s'"

_ATTEMPTS = """
SELECT count(*) FILTER (WHERE token IS NOT NULL), count(*) FILTER (WHERE outcome IN ('completed', 'cached')),
       count(*) FILTER (WHERE outcome IN ('failed', 'timed_out')), count(*) FILTER (WHERE attempt > 0),
       count(*) FILTER (WHERE outcome = 'lost'), count(*) FILTER (WHERE outcome = 'cached'),
       count(*) FILTER (WHERE cache_key IS NOT NULL AND outcome <> 'cached'), ended_at > %(until)s
FROM attempts WHERE ended_at > %(after)s AND iteration[1] IS DISTINCT FROM -1 GROUP BY 8
"""
_TRANSITIONS = """
SELECT count(*) FILTER (WHERE to_state = 'completed'), count(*) FILTER (WHERE to_state = 'failed'),
       count(*) FILTER (WHERE event_type = 'sla_breached' AND details ->> 'type' = 'max_runtime'),
       count(*) FILTER (WHERE event_type = 'sla_breached' AND details ->> 'type' = 'max_step_runtime'),
       created_at > %(until)s
FROM transitions WHERE created_at > %(after)s GROUP BY 5
"""
_DURATIONS = """
SELECT width_bucket(d.seconds, %(bounds)s::float8[]), count(*), (sum(d.seconds) * 1000000)::bigint, d.is_recent
FROM (SELECT greatest(0, extract(epoch FROM ended_at - claimed_at))::float8 - 1e-9 AS seconds,
             ended_at > %(until)s AS is_recent
      FROM attempts WHERE ended_at > %(after)s AND claimed_at IS NOT NULL AND token IS NOT NULL) AS d GROUP BY 1, 4
"""
_LIFETIMES = """
SELECT width_bucket(d.seconds, %(bounds)s::float8[]), count(*), (sum(d.seconds) * 1000000)::bigint, d.is_recent
FROM (SELECT greatest(0, extract(epoch FROM t.created_at - coalesce(i.started_at, i.created_at)))::float8 - 1e-9
             AS seconds, t.created_at > %(until)s AS is_recent
      FROM transitions t JOIN instances i ON i.id = t.instance_id
      WHERE t.created_at > %(after)s AND t.to_state IN ('completed', 'failed', 'cancelled')) AS d GROUP BY 1, 4
"""
STEP_DURATION = "orch8_step_duration_seconds"
INSTANCE_DURATION = "orch8_instance_processing_seconds"
TICK_DURATION = "orch8_tick_duration_seconds"
_ATTEMPT_NAMES = (
    "orch8_instances_claimed",
    "orch8_steps_executed",
    "orch8_steps_failed",
    "orch8_steps_retried",
    "orch8_recovery_stale_instances",
    "orch8_cache_hits",
    "orch8_cache_misses",
)
_TRANSITION_NAMES = ("orch8_instances_completed", "orch8_instances_failed", "max_runtime", "max_step_runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What happened after a moment: up to `until`, where nothing can be added any more, and after that."""

    until: datetime
    settled: dict[str, int]
    recent: dict[str, int]


def totals(tx: Transaction) -> dict[str, int]:
    """Give all counters as they stand now; the first look of an installation sets the mark and counts nothing."""
    tx.execute(_PATIENCE)
    marked = tx.query("SELECT value FROM installation WHERE name = %s FOR SHARE", (_MARK,))
    counted = counters.read(tx)
    if not marked:
        _set_mark(tx)
        return counted
    seen = _since(tx, datetime.fromisoformat(marked[0][0]))
    for counts in (seen.settled, seen.recent):
        for name, count in counts.items():
            counted[name] = counted.get(name, 0) + count
    return counted


def fold(tx: Transaction) -> None:
    """Let the mark go on, if it is far behind and nobody else is at it: what it passes is added to the counters."""
    tx.execute(_PATIENCE)
    rows = tx.query(
        "SELECT value, value::timestamptz < clock_timestamp() - %s FROM installation WHERE name = %s "
        "FOR UPDATE SKIP LOCKED",
        (FOLD_AFTER, _MARK),
    )
    if not rows:
        _set_mark(tx)
    elif rows[0][1]:
        seen = _since(tx, datetime.fromisoformat(rows[0][0]))
        installation.write(tx, _MARK, seen.until.isoformat())
        counters.add(tx, seen.settled)


def _set_mark(tx: Transaction) -> None:
    """Begin to count, unless somebody has begun."""
    tx.execute(
        "INSERT INTO installation (name, value) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING",
        (_MARK, tx.now().isoformat()),
    )


def _since(tx: Transaction, after: datetime) -> _Seen:
    until = tx.query(f"SELECT greatest(%s, clock_timestamp() - {_OPEN_FOR})", (after,))[0][0]
    settled: dict[str, int] = {}
    recent: dict[str, int] = {}
    slice_of_time = {"after": after, "until": until, "bounds": list(BOUNDS)}
    for statement, names in ((_ATTEMPTS, _ATTEMPT_NAMES), (_TRANSITIONS, _TRANSITION_NAMES)):
        for *counts, is_recent in tx.query(statement, slice_of_time):
            _add(recent if is_recent else settled, names, counts)
    for statement, name in ((_DURATIONS, STEP_DURATION), (_LIFETIMES, INSTANCE_DURATION)):
        for number, count, microseconds, is_recent in tx.query(statement, slice_of_time):
            to = recent if is_recent else settled
            to[bucket_name(name, number)] = count
            to[sum_name(name)] = to.get(sum_name(name), 0) + max(0, microseconds)
    return _Seen(until=until, settled=settled, recent=recent)


def _add(to: dict[str, int], names: tuple[str, ...], counts: list[Any]) -> None:
    to.update(zip(names, counts, strict=True))
