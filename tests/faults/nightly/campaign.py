"""Plays rounds: wait for work in progress, strike, wait for the healing and the end of what was accepted, judge."""

import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from uuid import UUID

from redis import Redis

from orchestrator.core.model import Claim
from orchestrator.errors import StoreUnavailable
from tests.faults import checkers
from tests.faults.journey import Fault, Run, record
from tests.faults.nightly.judge import GRACE_SECONDS, Verdict, judge
from tests.faults.nightly.kinds import Kind, Pace
from tests.faults.nightly.record import Record
from tests.faults.nightly.site import Site
from tests.support.stack import children_of
from tests.support.waiting import wait_until

PROGRESS_SECONDS = 30.0
"""I12: so long after the healing at the most may it take until a step is completed."""
DRAIN_SECONDS = 150.0
WORK_SECONDS = 60.0
MEGABYTE = 1024 * 1024


class Campaign:
    """Rounds against one installation.

    Args:
        site: Under load.
        kept: Where results go.
        pace: How long faults last.
    """

    def __init__(self, site: Site, kept: Record, pace: Pace) -> None:
        self._site = site
        self._record = kept
        self._pace = pace
        self._judged = 0
        self._judged_at = time.time()
        self._former: tuple[Fault, ...] = ()

    def play(self, kinds: Sequence[Kind], random: Random) -> None:
        """Play a round: strike one after the other while the load goes on, then judge all that was accepted.

        Raises:
            AssertionError: Something that was waited for did not come: the installation cannot be used any more.
        """
        site, kept = self._site, self._record
        self._wait_for_work(random.randint(5, 10))
        before = self._read(site.load.since(self._judged))
        held: list[Claim] = []
        hits = []
        for kind in kinds:
            held += [claim for claim in wait_until(self._claims, "the database to answer") if claim is not None]
            hits.append(self._strike(kind, random))
        healed_at = time.time()
        ids = site.load.since(self._judged)
        site.stack.wait_for_end(ids, DRAIN_SECONDS)
        self._check_processes(kinds[-1])
        kept.drained.setdefault(kinds[-1].name, []).append(round(time.time() - healed_at, 3))
        silences = site.pulse.since(self._judged_at)
        kept.silences += sum(each.began_at >= self._judged_at for each in silences)
        self._judged_at = healed_at
        verdicts = judge(self._read(ids), (*self._former, *hits, *silences), before.outputs)
        stale = site.ended_badly(held)
        verdicts["I4 stale reports are refused"] = Verdict(
            checked=len(stale),
            broken=checkers.stale_reports_are_refused(site.stack.engine, stale, lambda: self._stale_outputs(ids)),
        )
        kept.add(" + ".join(kind.name for kind in kinds), verdicts)
        self._note_load()
        self._former = tuple(hits)
        self._judged += len(ids)
        kept.accepted += len(ids)
        kept.sample(self._sizes())
        kept.rounds += 1
        site.effects.forget(ids)

    def end(self) -> None:
        """End the load, and check that requests that were repeated have started one instance each."""
        load = self._site.load
        load.stop()
        [[started]] = self._site.stack.query(
            "SELECT count(*) FROM instances WHERE sequence_id = %s", (load.sequence_id,)
        )
        wrong = [] if started == len(load.accepted) else [f"{len(load.accepted)} accepted, {started} started"]
        self._record.add("any", {"I1 a repeated request starts nothing": Verdict(checked=started, broken=wrong)})

    def _strike(self, kind: Kind, random: Random) -> Fault:
        """Strike, mend, and wait until work goes on."""
        site, kept = self._site, self._record
        began_at = time.time()
        kind.strike(site, random, self._pace)
        self._check_processes(kind)
        site.mend()
        healed_at = time.time()
        recovery = self._wait_for_progress(healed_at)
        kept.recovery.setdefault(kind.name, []).append(round(recovery, 3))
        kept.faults[kind.name] += 1
        kept.counts["I10 poison is parked"] += kind.group == "poison"
        kept.add(kind.name, {"I12 work goes on after the healing": Verdict(checked=1, broken=_late(recovery))})
        print(f"{time.strftime('%H:%M:%S')} {kind.name}: work went on after {recovery:.2f} s", flush=True)
        return Fault(
            name=kind.name,
            began_at=began_at,
            ended_at=healed_at + GRACE_SECONDS,
            may_run_again=kind.may_run_again,
        )

    def _check_processes(self, kind: Kind) -> None:
        """No process ends for a fault that does not end it."""
        down = self._site.down()
        verdict = Verdict(checked=1, broken=[f"{name} has ended" for name in down])
        self._record.add(kind.name, {"no process ends by itself": verdict})
        if down:
            self._site.stack.start_all()

    def _note_load(self) -> None:
        kept, load = self._record, self._site.load
        if load.wrong:
            kept.note("any", "T18 the API answers 503 or accepts", load.wrong[:])
            load.wrong.clear()
        kept.answers.update(load.answers)
        load.answers.clear()

    def _claims(self) -> list[Claim] | tuple[None]:
        try:
            return self._site.claims() or (None,)
        except StoreUnavailable:
            return []

    def _wait_for_work(self, instances: int) -> None:
        """Wait until some instances of this round are on their way, and some of their steps are done."""

        def is_at_work() -> bool:
            ids = self._site.load.since(self._judged)
            return len(ids) >= instances and len(self._read(ids).outputs) >= 3 * instances

        wait_until(is_at_work, lambda: f"work\n{self._site.stack.log_tail()}", within=WORK_SECONDS)

    def _wait_for_progress(self, healed_at: float) -> float:
        """Wait until a step is completed after the healing; returns the seconds it took, also if those are too many."""

        def first() -> float | None:
            return self._site.completed_after(healed_at, self._site.load.since(self._judged))

        found = wait_until(first, lambda: f"progress\n{self._site.stack.log_tail()}", within=DRAIN_SECONDS)
        return (found or healed_at) - healed_at

    def _read(self, ids: Sequence[UUID]) -> Run:
        return wait_until(lambda: self._try_to_read(ids), "the database to answer", within=PROGRESS_SECONDS)

    def _try_to_read(self, ids: Sequence[UUID]) -> Run | None:
        try:
            return record(self._site.stack.query, self._site.effects.of(ids), ids)
        except StoreUnavailable:  # connections of ours that a fault has cut
            return None

    def _stale_outputs(self, ids: Sequence[UUID]) -> int:
        statement = "SELECT count(*) FROM outputs WHERE instance_id = ANY(%s::uuid[]) AND output->>'nonce' = 'stale'"
        count: int = self._site.stack.query(statement, (list(ids),))[0][0]
        return count

    def _sizes(self) -> dict[str, float]:
        stack = self._site.stack
        redis = Redis.from_url(stack.servers.redis_url)
        keys = redis.dbsize()
        redis.close()
        [[dead]] = stack.query("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'steps'")
        return {
            "Redis keys": float(keys),  # type: ignore[arg-type]
            "dead tuples of steps / 100": dead / 100,
            "megabytes of the largest process": max(_megabytes(stack.pid(name)) for name in stack.processes.names),
        }


def _megabytes(pid: int) -> float:
    """Measure the resident memory of a process or of the largest of its children."""
    sizes = []
    for each in (pid, *children_of(pid)):
        text = Path(f"/proc/{each}/statm").read_text() if Path(f"/proc/{each}").exists() else "0 0"
        sizes.append(int(text.split()[1]) * 4096 / MEGABYTE)
    return max(sizes)


def _late(recovery: float) -> list[str]:
    return [f"no step was completed for {recovery:.1f} s after the healing"] if recovery > PROGRESS_SECONDS else []
