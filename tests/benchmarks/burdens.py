"""W8 and W9: what is lost while somebody holds a snapshot open, and beside gigabytes of finished history."""

import contextlib
import statistics
import time
from collections.abc import Iterator

import psycopg2

from orchestrator.embedded import without_driver
from tests.benchmarks.copies import Copier
from tests.benchmarks.ours import COARSE_SECONDS, Orchestrator, flat
from tests.benchmarks.works import W1_STEPS, Chain, Samples, Say, percentile

BESIDE = 5
"""Runs of W1 before the snapshot, and at its end: the medians of both are compared."""

HISTORY_BYTES = 1024
"""Size of an output in the history."""

COPIES_AT_FIRST = 2_000
"""Copies that show how many bytes one takes."""


def measure_snapshot(bench: Orchestrator, seconds: float, say: Say) -> Samples:
    """Do W8: W1 over and over while a transaction keeps its snapshot; the loss at its end, in percents."""
    free = statistics.median(bench.throughput() for _ in range(BESIDE))
    with _snapshot(bench.url):
        until = time.monotonic() + seconds
        found: list[float] = []
        while time.monotonic() < until or len(found) < BESIDE:
            found.append(bench.throughput())
    held = statistics.median(found[-BESIDE:])
    loss = (1 - held / free) * 100
    say(f"{bench.engine}: W1 {free:.0f} steps/s, {held:.0f} at the end of {seconds:g} s of an open snapshot")
    return {"W8_loss_pct": [loss]}


@contextlib.contextmanager
def _snapshot(url: str) -> Iterator[None]:
    """Hold a snapshot for a block: nothing that ends meanwhile can be cleaned away."""
    with contextlib.closing(psycopg2.connect(without_driver(url))) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT txid_current(), count(*) FROM instances")
        yield


def measure_history(bench: Orchestrator, megabytes: int, repeats: int, w2_instances: int, say: Say) -> Samples:
    """Do W9: W1 and W2 without and with much finished history; the loss of each, in percents."""
    copier = Copier(bench.url)
    copier.settle()
    empty = _works(bench, repeats, w2_instances)
    began = time.monotonic()
    _fill(bench, copier, megabytes * 2**20)
    copier.settle()
    say(f"{bench.engine}: {copier.size() / 2**20:.0f} MB of history, made in {time.monotonic() - began:.1f} s")
    full = _works(bench, repeats, w2_instances)
    say(f"{bench.engine}: W1 and W2 p50 {empty} before, {full} beside the history")
    return {"W9_W1_loss_pct": [(1 - full[0] / empty[0]) * 100], "W9_W2_loss_pct": [(full[1] / empty[1] - 1) * 100]}


def _works(bench: Orchestrator, repeats: int, w2_instances: int) -> tuple[float, float]:
    rates = [bench.throughput() for _ in range(repeats)]
    chains: list[Chain] = [bench.chain() for _ in range(w2_instances)]
    return statistics.median(rates), percentile([each for chain in chains for each in chain.durations_ms()], 50)


def _fill(bench: Orchestrator, copier: Copier, wanted: int) -> None:
    """Copy a finished instance of ten steps, each with an output of a kilobyte, until the database has grown enough."""
    told = {"params": {"message": "x" * HISTORY_BYTES}}
    sequence_id = bench.define("w9", [step | told for step in flat(W1_STEPS, "log")])
    ids = bench.start(sequence_id, 1)
    bench.wait(ids, time.perf_counter(), COARSE_SECONDS)
    before = copier.size()
    copier.copy(ids[0], COPIES_AT_FIRST, kind="history")
    each = (copier.size() - before) / COPIES_AT_FIRST
    copier.copy(ids[0], max(0, round(wanted / each) - COPIES_AT_FIRST), kind="history")
