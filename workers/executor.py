"""Runs steps: a pipe from the claim to the commit.

    claim ─► inputs ─► handler ─► check ─► finish, and carry on

A doorbell starts it. It claims what is ready, runs it, and commits the outcome together with the claim of what comes
next, until nothing is ready or its time slice is over. Handlers that never block, or have been quick so far, are run
several at a time and committed together; coroutine handlers are handed to the event loop and reported when they are
done.

A worker that is not heard of is taken for dead, and its steps are given to others. So nothing is claimed, and no
handler called, once its last heartbeat is too long ago; a step that was claimed before is given back then.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random
from typing import TypeVar
from uuid import UUID

import structlog

from orchestrator.carry import CarryOn
from orchestrator.clock import MACHINE_TIME, MachineTime
from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Failed, FailureKind, Outcome
from orchestrator.core.steps import runs_in_process
from orchestrator.credential_use import CredentialUse, cleared, has_reference
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import Finished, Report, Wish, Work
from orchestrator.settings import Settings
from orchestrator.store.claiming import Worker
from orchestrator.store.session import first_line
from workers.attempt import TimeLimit, context_of, run, seconds_left, time_limit, timed_out
from workers.batch import Batch, Bystander, Settle, Watch
from workers.coroutines import Coroutines, Ended
from workers.holdings import Holdings
from workers.outputs import check_outcome
from workers.overtime import Overtime
from workers.pace import Pace
from workers.patience import Patience
from workers.registry import Handler, HandlerSource
from workers.step_events import StepEvents
from workers.urgency import Urgency

log = structlog.get_logger()

T = TypeVar("T")

CLAIM_PATIENCE_SECONDS = 60.0
REPORT_PATIENCE_SECONDS = 600.0
LEASE_POLL_SECONDS = 0.05


class Executor:
    """Claims and runs steps in one worker process (a child, for the prefork pool).

    Args:
        worker: Who claims: the worker process, with this process's pid as the slot.
        handlers: What this worker can run.
        queues: What it serves; carrying on stays on these.
        machine: Tells durations, and waits while the store is away.
        randomness: Where the jitter of those waits comes from; None for a source of its own.
        bystander: Makes the one who watches batches.
        limit: Ends a handler whose time is over.
        must_stop: Tells that the worker is about to end, and takes no more steps.
        term: Gives the number of the time in which what this worker claims is its own; None when it is over.
        use: Puts credentials into params; None leaves references as they are.
    """

    def __init__(
        self,
        engine: Engine,
        worker: Worker,
        handlers: HandlerSource,
        queues: Sequence[str],
        settings: Settings,
        events: StepEvents,
        overtime: Overtime,
        *,
        machine: MachineTime = MACHINE_TIME,
        randomness: Random | None = None,
        bystander: Callable[[Settle], Watch] = Bystander,
        limit: TimeLimit = time_limit,
        must_stop: Callable[[], bool] = lambda: False,
        term: Callable[[], float | None] = lambda: 0.0,
        use: CredentialUse | None = None,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._handlers = handlers
        self._queues = frozenset(queues)
        self._settings = settings
        self._events = events
        self._overtime = overtime
        self._machine = machine
        self._random = randomness or Random()  # noqa: S311 - jitter, not secrets
        self._limit = limit
        self._must_stop = must_stop
        self._term = term
        self._use = use
        names = handlers.names()
        self._names = names
        self._known = frozenset(names)
        self._readers = tuple(name for name in names if not runs_in_process(name))
        found = {name: handlers.find(name) for name in names}
        self._instant = frozenset(name for name, known in found.items() if known is not None and known.is_instant)
        self._effectless = frozenset(name for name, known in found.items() if known is not None and known.is_effectless)
        self._awaitable = frozenset(name for name, known in found.items() if known is not None and known.is_async)
        self._pace = Pace()
        self._urgency = Urgency(lambda: engine.most_urgent(self._queues, names), monotonic=machine.monotonic)
        self._bystander = bystander(self._settle)
        self._holdings = Holdings(lambda: engine.held_by(worker), term, machine)
        self._coroutines = Coroutines(settings.async_capacity, self._report_coroutines, self._holdings.may_begin)
        self._rounds: Counter[UUID] = Counter()
        self._parent = os.getppid()
        self.is_stopping = False

    def answer_for_sure(self, queue: str, step_id: UUID | None) -> None:
        """Answer a doorbell, and look again for as long as it is not known what this process holds.

        Nobody else would run that, and there may be no other doorbell.
        """
        try:
            self.answer(queue, step_id)
        finally:
            while self._holdings.is_unsure and not self.has_to_stop():
                with suppress(StoreUnavailable):
                    self.answer(queue, None)

    def has_to_ask(self) -> bool:
        """Tell whether it is time to look once more for what a commit without an answer has claimed."""
        return self._holdings.is_due and not self.has_to_stop()

    def answer(self, queue: str, step_id: UUID | None) -> int:
        """Answer a doorbell: run what is ready on the queue, for one time slice; returns how many steps were run."""
        until = self._machine.monotonic() + self._settings.time_slice.total_seconds()
        claims = self._claim(queue, step_id)
        ran = 0
        while claims:
            ran += len(claims)
            claims = self._run_groups(_grouped(claims), until)
            if not claims and self._may_go_on(until):
                claims = self._claim(queue, None)
        return ran

    @property
    def _quick(self) -> frozenset[str]:
        return self._instant | self._pace.quick

    def has_to_stop(self) -> bool:
        """Tell whether this process is to take no more steps."""
        return self.is_stopping or self._must_stop() or os.getppid() != self._parent

    def _may_go_on(self, until: float) -> bool:
        return self._machine.monotonic() < until and not self.has_to_stop()

    def _lasting_term(self) -> float | None:
        """Wait until the store has heard of this worker; None if it has to stop before, or that takes too long."""
        until = self._machine.monotonic() + CLAIM_PATIENCE_SECONDS
        while (term := self._term()) is None:
            if self.has_to_stop() or self._machine.monotonic() >= until:
                break
            self._machine.sleep(LEASE_POLL_SECONDS)
        return term

    def _claim(self, queue: str, step_id: UUID | None) -> list[Claim]:
        self._rounds.clear()
        room = self._coroutines.room()
        limit = min(self._settings.batch_size, room) if room else 1
        together = self._quick | self._awaitable if room else self._quick
        wish = Wish(queue=queue, handlers=self._names, together=together, readers=self._readers, limit=limit)
        patience = self._patience(CLAIM_PATIENCE_SECONDS)
        while (term := self._lasting_term()) is not None:
            try:
                with self._holdings.making:
                    adopted = self._holdings.unknown()
                    claims = self._holdings.note(
                        adopted or self._engine.claim(self._worker, wish, step_id=step_id), term
                    )
            except Exception as error:  # noqa: BLE001 - goes on unless it passes; something may be claimed
                self._holdings.doubt_commit()
                patience.wait(error)
            else:
                if len(self._queues) == 1 and not adopted:
                    self._urgency.noted()
                return claims
        return []

    def _run_groups(self, groups: Sequence[Sequence[Claim]], until: float) -> list[Claim]:
        """Run groups of claims one after the other; returns the claims made in the commits of their outcomes."""
        left, following = deque(groups), list[Claim]()
        try:
            while left:
                following += self._run(left.popleft(), until)
        except BaseException:
            # Nobody runs these any more: what is not known is found by asking.
            self._holdings.release(claim.token for group in (*left, following) for claim in group)
            self._holdings.doubt()
            raise
        return following

    def _run(self, claims: Sequence[Claim], until: float) -> list[Claim]:
        """Run claimed steps; returns the ones claimed in the commit of their outcomes."""
        awaiting: set[UUID] = set()
        try:
            return self._run_and_report(claims, until, awaiting)
        except StoreUnavailable:
            self._holdings.doubt()
            raise
        except Exception as error:
            log.exception("claims_given_up", count=len(claims))
            self._holdings.doubt()
            left = [claim for claim in claims if claim.token not in awaiting]
            self._engine.lose(left, f"the worker could not run the step: {type(error).__name__}: {first_line(error)}")
            return []
        finally:
            self._holdings.release(claim.token for claim in claims if claim.token not in awaiting)

    def _run_and_report(self, claims: Sequence[Claim], until: float, awaiting: set[UUID]) -> list[Claim]:
        batch = Batch(self._inputs(claims))
        try:
            unbegun = self._run_batch(batch, awaiting)
        except SystemExit:
            self._part_with([claim for claim in claims if claim.token not in awaiting], batch)
            raise
        reports, _ = batch.withdraw()
        self._rounds.update(report.claim.instance_id for report in reports)
        following = self._finish(reports, None if unbegun else self._carry_on(until)) if reports else []
        self._let_go(unbegun)
        return following

    def _run_batch(self, batch: Batch, awaiting: set[UUID]) -> list[Claim]:
        """Run the steps of a batch; returns those that could not begin."""
        unbegun: list[Claim] = []
        with self._bystander.watching(batch):
            while (work := batch.take()) is not None:
                self._events.started(work.claim)
                handler = self._handlers.find(work.claim.handler)
                work = self._in_time(self._filled(work))
                if handler is not None and handler.is_async and work.failure is None:
                    self._overtime.begin(work.claim.token, seconds_left(work, self._engine))
                    context = context_of(work, self._engine)
                    awaiting.add(work.claim.token)
                    self._coroutines.start(work, handler, context)
                elif (
                    outcome := self._outcome(work, handler, partial(self._holdings.may_begin, work.claim))
                ) is not None:
                    batch.add(Report(claim=work.claim, outcome=outcome, logs=work.log.lines()))
                else:
                    unbegun.append(work.claim)
        return unbegun

    def _part_with(self, claims: Sequence[Claim], batch: Batch) -> None:
        """Store what is finished of a batch in which this process was told to end, and let others have the rest.

        Where not the whole worker ends, it may be the handler that has sent the signal, so that counts as a loss.
        """
        self.is_stopping = True
        reports, _ = batch.withdraw()
        finished = {report.claim.token for report in reports}
        left = [claim for claim in claims if claim.token not in finished]
        with suppress(StoreUnavailable):
            if reports:
                self._engine.finish(reports, None)
            if self._must_stop():
                self._engine.give_back(left)
            else:
                self._engine.lose(left, f"worker process {os.getpid()} was told to end")
        log.info("steps_stopped", count=len(left))

    def _patience(self, seconds: float) -> Patience:
        return Patience(seconds, self._machine, self._random, self._engine.store.is_passing)

    def _patiently(self, act: Callable[[], T]) -> T:
        """Ask the store for something that steps are held for, however long it takes to come back."""
        patience = self._patience(REPORT_PATIENCE_SECONDS)
        while True:
            try:
                return act()
            except Exception as error:  # noqa: BLE001 - goes on unless it passes
                patience.wait(error)

    def _inputs(self, claims: Sequence[Claim]) -> list[Work]:
        return self._patiently(lambda: self._engine.inputs(claims))

    def _filled(self, work: Work) -> Work:
        """Put credentials into params; work that is done already must not be lost because the store is away."""
        use = self._use
        return work if use is None else self._patiently(lambda: use.filled(work))

    def _in_time(self, work: Work) -> Work:
        """Fail work whose time has passed before it began: others go on with the step then."""
        expires_at = work.claim.expires_at
        is_over = expires_at is not None and expires_at <= self._engine.now()
        return replace(work, failure=timed_out(work)) if is_over and work.failure is None else work

    def _outcome(self, work: Work, handler: Handler | None, may_begin: Callable[[], bool]) -> Outcome | None:
        """Run a step; None if it may not begin."""
        began_at = self._machine.monotonic()
        with self._overtime.watched(work.claim.token, seconds_left(work, self._engine)):
            outcome = run(work, handler, self._engine, self._limit, may_begin)
        if outcome is None:
            return None
        self._pace.note(work.claim.handler, self._machine.monotonic() - began_at)
        return check_outcome(cleared(outcome, work), max_bytes=self._settings.max_output_bytes)

    def _carry_on(self, until: float) -> CarryOn | None:
        if not self._may_go_on(until) or self._term() is None:
            return None
        return CarryOn(
            worker=self._worker,
            queues=self._queues,
            handlers=self._known,
            instant=self._quick,
            limit=self._settings.batch_size,
            rounds_left=lambda instance_id: self._settings.carry_on_steps - self._rounds[instance_id],
            least_priority=self._urgency.now(),
            effectless=self._effectless,
            run=self._run_ahead,
        )

    def _run_ahead(self, work: Work) -> Outcome | None:
        """Run a step before it is claimed; None if its params ask for credentials, which are in the store."""
        if has_reference(work.params):
            return None
        self._rounds[work.claim.instance_id] += 1
        return self._outcome(work, self._handlers.find(work.claim.handler), lambda: True)

    def _finish(self, reports: Sequence[Report], carry_on: CarryOn | None) -> list[Claim]:
        """Commit outcomes, however long the store takes to come back; one that cannot be stored holds up no other."""
        try:
            finished = self._commit(reports, carry_on)
        except Exception as error:
            if len(reports) > 1:
                return [claim for report in reports for claim in self._finish([report], None)]
            log.exception("outcome_refused", instance_id=str(reports[0].claim.instance_id))
            self._give_up(reports[0], error)
            return []
        for claim in finished.lost:
            log.warning(
                "lost_claim", instance_id=str(claim.instance_id), step=claim.key.block_id, attempt=claim.attempt
            )
        lost = {claim.token for claim in finished.lost}
        for report in reports:
            if report.claim.token not in lost:
                self._events.ended(report.claim, report.outcome)
        for report in finished.ahead:
            self._events.started(report.claim)
            self._events.ended(report.claim, report.outcome)
        return list(finished.claims)

    def _commit(self, reports: Sequence[Report], carry_on: CarryOn | None) -> Finished:
        patience = self._patience(REPORT_PATIENCE_SECONDS)
        while True:
            try:
                if carry_on is None:
                    return self._engine.finish(reports, None)
                with self._holdings.making:
                    term = self._term()
                    finished = self._engine.finish(reports, carry_on)
                    # First noted, then asked: what this commit has claimed is not to be adopted, and run, once more.
                    self._holdings.note(finished.claims, term)
                break
            except Exception as error:
                if carry_on is not None:
                    self._holdings.doubt_commit()
                if len(reports) > 1 and not isinstance(error, StoreUnavailable):
                    raise  # each is tried alone: it may be one of them that the store cannot bear
                patience.wait(error)
        adopted = self._adopted_patiently(patience)
        return replace(finished, claims=(*finished.claims, *adopted)) if adopted else finished

    def _adopted_patiently(self, patience: Patience) -> list[Claim]:
        """Adopt what is not known of; whatever the question fails with costs nothing that is known already.

        The commit before is not repeated for it: the answer to a second report names no claims.
        """
        while self._holdings.is_unsure:
            try:
                with self._holdings.making:
                    term = self._term()
                    return self._holdings.note(self._holdings.unknown(), term)
            except Exception as error:  # noqa: BLE001 - it is asked again later
                self._holdings.doubt()
                try:
                    patience.wait(error)
                except Exception:  # noqa: BLE001
                    log.warning("claims_not_asked_for", error=str(error))
                    break
        return []

    def _settle(self, reports: Sequence[Report], waiting: Sequence[Work]) -> None:
        """Break up a batch whose running step takes long: commit what is finished, give back what has not begun."""
        try:
            if reports:
                self._finish(reports, None)
            if waiting:
                self._give_back([work.claim for work in waiting])
        except Exception:
            # Nobody else would look after these: what is still claimed is found by asking, and run after all.
            self._holdings.release(report.claim.token for report in reports)
            self._holdings.release(work.claim.token for work in waiting)
            self._holdings.doubt()
            raise

    def _give_back(self, claims: Sequence[Claim]) -> None:
        self._patiently(lambda: self._engine.give_back(claims))
        log.info("claims_given_back", count=len(claims))

    def _let_go(self, claims: Sequence[Claim]) -> None:
        """Give back claims of which nobody knows whose they are by now; of those that are others' nothing changes."""
        if claims:
            log.warning("claims_let_go", count=len(claims))
            self._give_back(claims)

    def _give_up(self, report: Report, error: Exception) -> None:
        """End an attempt whose outcome the store or the core refuses: as a failure, or else as lost work."""
        message = f"the outcome could not be stored: {type(error).__name__}: {first_line(error)}"
        failure = Failed(message=message, retryable=False, kind=FailureKind.OUTPUT)
        try:
            self._commit([Report(claim=report.claim, outcome=failure, logs=report.logs)], None)
        except Exception:
            log.exception("attempt_given_up", instance_id=str(report.claim.instance_id))
            self._engine.lose([report.claim], message)

    def _report_coroutines(self, ended: Sequence[Ended]) -> None:
        for work, _ in ended:
            self._overtime.end(work.claim.token)
        reports = [
            Report(
                claim=work.claim,
                outcome=check_outcome(cleared(outcome, work), max_bytes=self._settings.max_output_bytes),
                logs=work.log.lines(),
            )
            for work, outcome in ended
            if outcome is not None
        ]
        try:
            if reports:
                self._finish(reports, None)
            self._let_go([work.claim for work, outcome in ended if outcome is None])
        except Exception:
            self._holdings.doubt()
            raise
        finally:
            self._holdings.release(work.claim.token for work, _ in ended)

    def close(self, timeout: float) -> None:
        """Take nothing more, and wait for coroutine handlers that are running."""
        self.is_stopping = True
        self._coroutines.close(timeout)
        self._events.close()


def _grouped(claims: Sequence[Claim]) -> list[list[Claim]]:
    """Put claims into groups that are run and committed together; a step that has lost its worker before runs alone.

    It may have been what killed the worker: run with others, it would make them lose theirs too, until all are parked.
    """
    fresh = [claim for claim in claims if not claim.losses]
    return [*([fresh] if fresh else []), *([claim] for claim in claims if claim.losses)]
