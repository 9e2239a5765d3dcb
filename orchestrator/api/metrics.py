"""Metrics in the Prometheus text format (contract, api §4).

What many processes add to is read from the store, since the start of this process: each counter goes on where the last
look at the rows ended, so a scrape costs what has happened since. Other counters are this process's own and are raised
by whoever sees the event. All names of the contract exist from the start, with the value 0.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Final

import psycopg2
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.errors import StoreUnavailable
from orchestrator.store import counters, observed, steps
from orchestrator.store.session import Store

FROM_STORE: Final = {
    "orch8_instances_claimed": "Attempts that workers have claimed and ended",
    "orch8_instances_completed": "Instances that have completed",
    "orch8_instances_failed": "Instances that have failed",
    "orch8_steps_executed": "Steps that have completed",
    "orch8_steps_failed": "Attempts that have failed",
    "orch8_steps_retried": "Attempts that were not the first of their step",
    "orch8_recovery_stale_instances": "Attempts taken from workers that had died",
    "orch8_cache_hits": "Steps answered from the cache",
    "orch8_cache_misses": "Attempts of steps whose cache key had no answer yet",
}
COUNTED: Final = {
    "orch8_cron_triggered": "Instances started by cron",
    "orch8_cron_skipped": "Cron fires skipped",
    "orch8_webhooks_sent": "Webhooks sent",
    "orch8_webhooks_failed": "Tries of webhooks that failed",
    "orch8_webhooks_parked": "Webhooks given up",
    "orch8_tasks_pushed": "Tasks pushed to endpoints",
    "orch8_tasks_push_failed": "Tasks that could not be pushed",
}
"""Counted by the processes that do it, in the store."""
SLA_KINDS: Final = ("max_runtime", "max_step_runtime")
OWN: Final = {
    "orch8_signals_delivered": "Signals accepted by this process",
    "orch8_rate_limits_exceeded": "Steps deferred by a limit",
    "orch8_loop_outputs_compacted": "Output rows dropped by retain_iterations",
}
HISTOGRAMS: Final = {
    "orch8_tick_duration_seconds": "Duration of a round of the scheduling loop",
    "orch8_step_duration_seconds": "Duration of an attempt",
    "orch8_instance_processing_seconds": "Duration of a decision about an instance",
}


class Metrics:
    """All metrics of one app."""

    def __init__(self, store: Store) -> None:
        self.registry = CollectorRegistry()
        self.own = {name: Counter(name, text, registry=self.registry) for name, text in OWN.items()}
        self.histograms = {name: Histogram(name, text, registry=self.registry) for name, text in HISTOGRAMS.items()}
        self.registry.register(_StoreMetrics(store))

    def begin(self) -> None:
        """Count from now on what is read from the store."""
        self.text()

    def count(self, name: str) -> None:
        """Raise one of this process's own counters."""
        self.own[name].inc()

    def text(self) -> bytes:
        """Write everything as Prometheus reads it."""
        return generate_latest(self.registry)


@dataclass(slots=True)
class _Tally:
    """Counts of rows up to a moment before which no transaction is still open, and how many came after."""

    until: datetime | None = None
    settled: dict[str, int] = field(default_factory=dict)


class _StoreMetrics(Collector):
    """Counters and gauges read from the store at each scrape; while it does not answer, the last ones."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tally = _Tally()
        self._counts: dict[str, int] = {}
        self._counted_before: dict[str, int] | None = None
        self._backlog: list[tuple[str, str, int]] = []
        self._lock = Lock()

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """Give the current values."""
        with self._lock:
            # A scrape must not fail with the store.
            with suppress(StoreUnavailable, psycopg2.Error):
                self._look()
            counts, backlog = dict(self._counts), list(self._backlog)
        for name, text in (FROM_STORE | COUNTED).items():
            yield CounterMetricFamily(name, text, value=counts.get(name, 0))
        breaches = CounterMetricFamily("orch8_sla_breached", "Run times over the SLA", labels=["type"])
        for kind in SLA_KINDS:
            breaches.add_metric([kind], counts.get(kind, 0))
        yield breaches
        yield GaugeMetricFamily("orch8_queue_depth", "Steps that wait for a worker", _sum(backlog, "ready"))
        yield GaugeMetricFamily("orch8_active_tasks", "Steps in the hands of workers", _sum(backlog, "claimed"))
        gauge = GaugeMetricFamily("orchestrator_backlog", "Open steps", labels=["queue", "state"])
        for queue, state, count in backlog:
            gauge.add_metric([queue, state], count)
        yield gauge

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Name nothing, so that registering does not read the store."""
        return ()

    def _look(self) -> None:
        with self._store.transaction() as tx:
            self._backlog = steps.backlog(tx)
            counted = counters.read(tx)
            seen = observed.since(tx, self._tally.until)
        if self._tally.until is not None:
            for name, count in seen.settled.items():
                self._tally.settled[name] = self._tally.settled.get(name, 0) + count
            names = self._tally.settled.keys() | seen.recent.keys()
            self._counts = {name: self._tally.settled.get(name, 0) + seen.recent.get(name, 0) for name in names}
        if self._counted_before is None:
            self._counted_before = counted
        for name in COUNTED:
            self._counts[name] = max(0, counted.get(name, 0) - self._counted_before.get(name, 0))
        self._tally.until = seen.until


def _sum(backlog: list[tuple[str, str, int]], wanted: str) -> int:
    return sum(count for _, state, count in backlog if state == wanted)
