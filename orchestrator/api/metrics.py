"""Metrics in the Prometheus text format (contract, api §4).

Everything is read from the store, so each API process shows the same: what all processes of the installation have done
since it began, whatever was restarted since. Scrape one of them, or the address of them all. All names of the contract
exist from the start, with the value 0.
"""

from collections.abc import Iterable
from contextlib import suppress
from threading import Lock
from typing import Final

import psycopg2
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.errors import StoreUnavailable
from orchestrator.store import counters, hints, observed
from orchestrator.store.counters import COMPACTED
from orchestrator.store.histograms import distribution
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
    "orch8_signals_delivered": "Signals accepted",
    "orch8_rate_limits_exceeded": "Steps deferred by a limit",
    COMPACTED: "Output rows dropped by retain_iterations",
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
HISTOGRAMS: Final = {
    observed.TICK_DURATION: "Duration of a round of the loops that let steps go and fire timers",
    observed.STEP_DURATION: "Time from the claim of an attempt to its end",
    observed.INSTANCE_DURATION: "Time from the first step of an instance to its end",
}


class Metrics:
    """All metrics of an installation, as each of its API processes shows them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.registry = CollectorRegistry()
        self.registry.register(_StoreMetrics(store))

    def begin(self) -> None:
        """Read once, so that an installation that is new begins to count."""
        self.text()

    def count(self, name: str) -> None:
        """Raise a counter of the installation; a store that does not answer loses the count, not the request."""
        with suppress(StoreUnavailable, psycopg2.Error), self._store.transaction() as tx:
            counters.add(tx, {name: 1})

    def text(self) -> bytes:
        """Write everything as Prometheus reads it."""
        return generate_latest(self.registry)


class _StoreMetrics(Collector):
    """Counters, histograms and gauges read from the store at each scrape; while it does not answer, the last ones."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: dict[str, int] = {}
        self._backlog: list[tuple[str, str, int]] = []
        self._lock = Lock()

    def collect(self) -> Iterable[Metric]:
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
        for name, text in HISTOGRAMS.items():
            found = distribution(name, counts)
            yield HistogramMetricFamily(name, text, buckets=found.buckets, sum_value=found.seconds)
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
            self._backlog = hints.backlog(tx)
            self._counts = _spread_summed(observed.totals(tx))


def _spread_summed(counts: dict[str, int]) -> dict[str, int]:
    """Add up the counter that is kept in several rows."""
    spread = sum(count for name, count in counts.items() if name.startswith(f"{COMPACTED}:"))
    return counts | {COMPACTED: spread}


def _sum(backlog: list[tuple[str, str, int]], wanted: str) -> int:
    return sum(count for _, state, count in backlog if state == wanted)
