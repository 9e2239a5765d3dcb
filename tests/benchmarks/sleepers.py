"""W7: very many sleeping instances, of which some are due each second.

Nearly all are copies (see `copies.py`) of one that the engine has put to sleep, due in a month. Those that become due
during the measurement are copies too, made shortly before; they run through the engine as any other.
"""

import os
import time
from uuid import UUID

from orchestrator.embedded import Servers
from tests.benchmarks.copies import Copier
from tests.benchmarks.ours import COARSE_SECONDS, WORK_SECONDS, Orchestrator, flat
from tests.benchmarks.processes import family, spent, usage
from tests.benchmarks.works import Samples, Say, Sleepers, shown

DUE_PER_SECOND = 1000
MONTH_SECONDS = 30 * 86_400.0
LEAD_SECONDS = 2.0
LEAD_OF_COPY = 0.5e-3
"""Seconds between the copying of instances and the first that is due: some, and more for each copy."""


def measure_sleepers(bench: Orchestrator, servers: Servers, size: Sleepers, repeats: int, say: Say) -> Samples:
    """Do W7 as often as told over the same sleepers."""
    template = _asleep(bench)
    copier = Copier(bench.url)
    began = time.monotonic()
    copier.copy(template, size.asleep, kind="far", first_in=MONTH_SECONDS, every=0.1)
    copier.settle()
    say(f"{bench.engine}: {size.asleep} sleeping instances copied in {time.monotonic() - began:.1f} s")
    samples: Samples = {"W7_late_p99_ms": [], "W7_idle_core_pct": [], "W7_memory_growth_pct": []}
    _due(copier, template, "warm-up", size.due_seconds * DUE_PER_SECOND)
    for repeat in range(1, repeats + 1):
        samples["W7_idle_core_pct"].append(_idle(servers, size.idle_seconds))
        before = _engine_bytes(servers)
        samples["W7_late_p99_ms"].append(_due(copier, template, f"due-{repeat}", size.due_seconds * DUE_PER_SECOND))
        samples["W7_memory_growth_pct"].append((_engine_bytes(servers) / before - 1) * 100)
        say(
            f"{bench.engine}: sleepers, {repeat} of {repeats}: "
            + shown({name: each[-1] for name, each in samples.items()})
        )
    return samples


def _asleep(bench: Orchestrator) -> UUID:
    """Start an instance whose only step waits for two months, and wait until it does."""
    [step] = flat(1, bench.handler)
    sequence_id = bench.define("w7", [step | {"delay": {"duration": int(2 * MONTH_SECONDS * 1000)}}])
    [id_] = bench.start(sequence_id, 1)
    until = time.monotonic() + WORK_SECONDS
    while True:
        with bench.store.transaction() as tx:
            if tx.query("SELECT 1 FROM timers WHERE instance_id = %s AND due_at > now()", (str(id_),)):
                return id_
        if time.monotonic() > until:
            raise RuntimeError("the instance with a delay does not sleep")
        time.sleep(COARSE_SECONDS)


def _servers(servers: Servers) -> set[int]:
    return family(pid for pid in (servers.postgres_pid, servers.redis_pid) if pid is not None)


def _spent_by_everybody(servers: Servers) -> float:
    """Add up what all processes but this one have used: API, workers, loops, PostgreSQL and the broker.

    What has ended is counted by its parent: PostgreSQL may share a query out to processes that live for it alone.
    """
    return spent((family([os.getpid()]) | _servers(servers)) - {os.getpid()})


def _engine_bytes(servers: Servers) -> int:
    """Give the memory of workers and loops. PostgreSQL counts its shared buffers in every process that touched them."""
    return usage(family([os.getpid()]) - _servers(servers) - {os.getpid()}).bytes


def _idle(servers: Servers, seconds: float) -> float:
    """Do nothing for a while; returns the percents of one core that all processes together took meanwhile."""
    before = _spent_by_everybody(servers)
    time.sleep(seconds)
    return (_spent_by_everybody(servers) - before) / seconds * 100


def _due(copier: Copier, template: UUID, kind: str, count: int) -> float:
    """Let copies become due, 1,000 a second; returns how late they were started, the p99 in milliseconds."""
    copier.copy(template, count, kind=kind, first_in=LEAD_SECONDS + count * LEAD_OF_COPY, every=1 / DUE_PER_SECOND)
    [(left,)] = copier.query(
        "SELECT extract(epoch FROM min(due_at) - clock_timestamp()) FROM copied WHERE kind = %s", (kind,)
    )
    if left < 0:
        raise RuntimeError(f"{count} sleeping instances were copied {-left:.1f} s after the first of them was due")
    until = time.monotonic() + WORK_SECONDS + count / DUE_PER_SECOND
    late = (
        "SELECT count(*), percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM a.claimed_at - c.due_at))"
        " FROM copied c JOIN attempts a ON a.instance_id = c.id WHERE c.kind = %s AND a.outcome = 'completed'"
    )
    time.sleep(float(left) + count / DUE_PER_SECOND)
    while True:
        [(done, seconds)] = copier.query(late, (kind,))
        if done == count:
            return float(seconds) * 1000
        if time.monotonic() > until:
            raise RuntimeError(f"{done} of {count} sleeping instances have run")
        time.sleep(0.2)
