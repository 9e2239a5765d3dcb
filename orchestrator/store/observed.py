"""Counts of what has happened lately, for metrics: read in slices of time; no look costs more than its slice."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.store.session import Transaction

_OPEN_FOR = "interval '20 seconds'"
"""Longer than any transaction lives (statement and idle time-outs are 15 s): older rows are all visible."""
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
class Seen:
    """What happened after a moment.

    Args:
        until: Up to here nothing can be added any more; the next look starts here.
        settled: Counts up to `until`.
        recent: Counts after it; they will be counted again.
    """

    until: datetime
    settled: dict[str, int]
    recent: dict[str, int]


def since(tx: Transaction, after: datetime | None) -> Seen:
    """Count what has happened after a moment; None starts now and counts nothing."""
    tx.execute(_PATIENCE)
    if after is None:
        return Seen(until=tx.now(), settled={}, recent={})
    until = tx.query(f"SELECT greatest(%s, clock_timestamp() - {_OPEN_FOR})", (after,))[0][0]
    settled: dict[str, int] = {}
    recent: dict[str, int] = {}
    for statement, names in ((_ATTEMPTS, _ATTEMPT_NAMES), (_TRANSITIONS, _TRANSITION_NAMES)):
        for *counts, is_recent in tx.query(statement, {"after": after, "until": until}):
            _add(recent if is_recent else settled, names, counts)
    return Seen(until=until, settled=settled, recent=recent)


def _add(to: dict[str, int], names: tuple[str, ...], counts: list[Any]) -> None:
    to.update(zip(names, counts, strict=True))
