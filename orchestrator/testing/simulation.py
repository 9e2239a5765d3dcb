"""Plays instances to rest: claims, handlers, reports, timers, planned acts and crashes, in the order of virtual time.

The engine, the core and what surrounds a handler are those of production; this module stands for the worker, the timer
loop and the clock on the wall. At each moment all that can run runs; only then time passes, to the next thing that is
due. Handlers take no time unless their part says so, and any number of them may be in progress.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any
from uuid import UUID, uuid4

from orchestrator.carry import CarryOn
from orchestrator.core.model import Claim, Step
from orchestrator.core.outcomes import Outcome
from orchestrator.core.states import StepState
from orchestrator.engine import Engine
from orchestrator.exchange import Report, Wish, Work
from orchestrator.settings import Settings
from orchestrator.store.claiming import Worker
from orchestrator.store.memory import MemoryStore, Moment, VirtualClock
from orchestrator.testing.acts import After, Before, Planned, Waiting
from orchestrator.testing.crashes import Crashed, CrashPlan, Passing, Point
from orchestrator.testing.parts import Cast, NobodyPlays
from workers.attempt import context_of, timed_out
from workers.outputs import check_outcome

MAX_TURNS = 100_000
"""Turns after which a run is taken for one that never comes to rest."""
LONGEST = timedelta(days=3650)
"""Ten years: a run that still moves after them is left as it stands."""
_AT_ONCE = 200


class Endless(AssertionError):
    """The run does not come to rest."""


@dataclass(slots=True, kw_only=True)
class Execution:
    """One call of a handler.

    Args:
        outcome: None as long as there is none.
        is_lost: Its result never counted: a crash, or a claim that had ended.
    """

    block_id: str
    iteration: tuple[int, ...]
    attempt: int
    handler: str
    params: Any
    at: datetime
    outcome: Outcome | None = None
    is_lost: bool = False

    @property
    def result(self) -> str:
        """What came of it: completed, failed, suspended, lost, or open."""
        if self.is_lost:
            return "lost"
        return "open" if self.outcome is None else type(self.outcome).__name__.lower()


@dataclass(slots=True, kw_only=True)
class _InProgress:
    claim: Claim
    execution: Execution
    outcome: Outcome


@dataclass(slots=True, kw_only=True)
class Simulation:
    """One world: a store, an engine over it, a worker that serves every queue, and the instances in it.

    Args:
        act: Does a planned act; the run it belongs to is known to whoever made this.
        carries_on: Whether the worker claims the next step in the commit of an outcome, as production does.
        crash: The crash to come, if any.
    """

    cast: Cast
    settings: Settings
    clock: VirtualClock
    act: Callable[[Planned], None]
    planned: Sequence[Planned] = ()
    carries_on: bool = False
    crash: CrashPlan | None = None
    seed: int = 0
    store: MemoryStore = field(init=False)
    engine: Engine = field(init=False)
    executions: list[Execution] = field(default_factory=list)
    passed: list[Passing] = field(default_factory=list)
    logs: list[tuple[str, str, Any]] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    started_at: datetime = field(init=False)
    _worker: Worker = field(init=False)
    _random: Random = field(init=False)
    _claimed: list[Claim] = field(default_factory=list)
    _in_progress: list[tuple[datetime, int, _InProgress]] = field(default_factory=list)
    _unanswered: dict[UUID, Execution] = field(default_factory=dict)
    _late: list[Report] = field(default_factory=list)
    _ended: Counter[str] = field(default_factory=Counter)
    _begun: Counter[str] = field(default_factory=Counter)
    _passings: Counter[tuple[Point, str]] = field(default_factory=Counter)
    _phase: tuple[Point, Point, str] | None = None
    _numbers: Iterator[int] = field(default_factory=count)
    _turns: int = 0

    def __post_init__(self) -> None:
        self.started_at = self.clock.now()
        self.store = MemoryStore(self.clock, self._watch)
        self._random = Random(self.seed)  # noqa: S311 - repeatable, not secret
        self._hire()

    # -- the world's processes -------------------------------------------------------------------------------------

    def _hire(self) -> None:
        """Begin a worker, and an engine with nothing in memory."""
        self._worker = Worker(id=uuid4(), name="harness", slot=1)
        names = self.cast.names()
        with self.store.transaction() as tx:
            tx.register_worker(_id(self._worker), name="harness", kind="celery", queues=[], handlers=names, slots=1)
        self.engine = Engine(self.store, None, self.settings, randomness=self._random)

    def _restart(self) -> None:
        """Lose all that was in memory, and give the claims of the dead worker to a new one."""
        dead = _id(self._worker)
        for _, _, lost in self._in_progress:
            lost.execution.is_lost = True
        for execution in self._unanswered.values():
            execution.is_lost = True
        self._in_progress.clear()
        self._unanswered.clear()
        self._claimed.clear()
        self._hire()
        with self.store.transaction() as tx:
            held = tx.claims_of(dead)
            tx.remove_worker(dead)
        self.engine.lose(held, "the worker has crashed")
        self._report_late()

    def _report_late(self) -> None:
        for report in self._late:
            if not self.engine.finish([report]).lost:
                raise AssertionError(f"a late report of `{report.claim.key.block_id}` was taken")

    @contextmanager
    def _during(self, first: Point, second: Point, block_id: str) -> Iterator[None]:
        self._phase = (first, second, block_id)
        try:
            yield
        finally:
            self._phase = None

    def _watch(self, moment: Moment) -> None:
        if self._phase is not None:
            first, second, block_id = self._phase
            self._pass(first if moment is Moment.BEFORE_COMMIT else second, block_id)

    def _pass(self, point: Point, block_id: str) -> None:
        """Pass a point, or crash there."""
        self._passings[point, block_id] += 1
        nth = self._passings[point, block_id]
        self.passed.append(Passing(point=point, block_id=block_id, nth=nth, at=self.clock.now()))
        plan = self.crash
        if plan is None or plan.point is not point or plan.step not in {None, block_id}:
            return
        if plan.nth == (nth if plan.step is not None else sum(p.point is point for p in self.passed)):
            self.crash = None
            self.crashed.append(str(plan))
            raise Crashed

    # -- turns -----------------------------------------------------------------------------------------------------

    def go(self, until: datetime | None = None) -> None:
        """Play until nothing moves any more, or until a moment.

        Raises:
            Endless: It does not come to rest.
            NobodyPlays: A step needs a handler that has no part.
        """
        for _ in range(MAX_TURNS):
            try:
                if not self._turn(until):
                    self._report_late()
                    return
            except Crashed:
                self._restart()
        raise Endless(f"not at rest after {MAX_TURNS} turns")

    def _turn(self, until: datetime | None) -> bool:
        """Do one thing; False if there is nothing to do."""
        return (
            self._act_if(lambda when: isinstance(when, datetime | timedelta) and self._moment(when) <= self.clock.now())
            or self._report_due()
            or self._run_one()
            or self._fire_due()
            or self._deliver_overdue()
            or self._act_if(lambda when: isinstance(when, Waiting) and self._is_open(when.block_id))
            or self._let_time_pass(until)
        )

    def _act_if(self, is_now: Callable[[Any], bool]) -> bool:
        for planned in self.planned:
            if not planned.has_happened and is_now(planned.when):
                planned.has_happened = True
                self.act(planned)
                return True
        return False

    def _moment(self, when: datetime | timedelta) -> datetime:
        return when if isinstance(when, datetime) else self.started_at + when

    def _is_open(self, block_id: str) -> bool:
        return any(step.key.block_id == block_id for _, step in self.open_steps())

    def open_steps(self) -> Iterator[tuple[UUID, Step]]:
        """Give the open steps of all instances."""
        for instance_id, rows in self.store.tables.instances.items():
            for row in rows.steps.values():
                yield instance_id, row.step

    # -- steps -----------------------------------------------------------------------------------------------------

    def _run_one(self) -> bool:
        if self._claimed:
            self._execute(self._claimed.pop(0))
            return True
        ready = self._next_ready()
        if ready is None:
            return False
        block_id = ready.key.block_id
        nth = self._begun[block_id] + 1
        if self._act_if(lambda when: when == Before(block_id, nth)):
            return True
        wish = Wish(queue=ready.queue, handlers=(ready.handler,))
        with self._during(Point.BEFORE_CLAIM, Point.AFTER_CLAIM, block_id):
            self._claimed += self.engine.claim(self._worker, wish, step_id=ready.id)
        return True

    def _next_ready(self) -> Step | None:
        ready = [step for i, step in self.open_steps() if step.state is StepState.READY and self._is_played(i, step)]
        return min(ready, key=lambda step: (-step.priority, step.ready_at or step.entered_at, step.id), default=None)

    def _is_played(self, instance_id: UUID, step: Step) -> bool:
        if not self.cast.knows(step.handler):
            raise NobodyPlays(
                f"step `{step.key.block_id}` needs the handler {step.handler!r}, and nobody plays it: "
                f"give handlers={{{step.handler!r}: ...}}, or silent() if no worker is to come"
            )
        return not self.cast.is_silent(self.store.tables.instances[instance_id].instance[None], step)

    def _execute(self, claim: Claim) -> None:
        block_id = claim.key.block_id
        self._begun[block_id] += 1
        self._pass(Point.BEFORE_HANDLER, block_id)
        for work in self.engine.inputs([claim]):
            execution = Execution(
                block_id=block_id,
                iteration=claim.key.iteration,
                attempt=claim.attempt,
                handler=claim.handler,
                params=work.params,
                at=self.clock.now(),
            )
            self.executions.append(execution)
            self._unanswered[claim.token] = execution
            self._play(work, execution)

    def _play(self, work: Work, execution: Execution) -> None:
        claim = work.claim
        if work.failure is not None:
            self._answer_at(self.clock.now(), claim, execution, work.failure)
            return
        context = replace(context_of(work, self.engine), log=self._log_of(claim), is_cancelled=lambda: False)
        played = self.cast.play(work, context)
        if played.has_died:
            raise Crashed
        outcome = None if played.outcome is None else check_outcome(played.outcome)
        if outcome is not None and self._will_crash_late(claim):
            self._late.append(Report(claim=claim, outcome=outcome))
        self._pass(Point.AFTER_HANDLER, claim.key.block_id)
        due = None if outcome is None else self.clock.now() + played.after
        if claim.expires_at is not None and (due is None or due > claim.expires_at):
            due, outcome = claim.expires_at, timed_out(work)
        if due is not None and outcome is not None:
            self._answer_at(due, claim, execution, outcome)

    def _will_crash_late(self, claim: Claim) -> bool:
        plan = self.crash
        if plan is None or not plan.reports_late or plan.step not in {None, claim.key.block_id}:
            return False
        nth = self._passings[Point.AFTER_HANDLER, claim.key.block_id] + 1
        return plan.nth == nth

    def _answer_at(self, due: datetime, claim: Claim, execution: Execution, outcome: Outcome) -> None:
        waiting = _InProgress(claim=claim, execution=execution, outcome=outcome)
        heapq.heappush(self._in_progress, (due, next(self._numbers), waiting))

    def _log_of(self, claim: Claim) -> Callable[..., None]:
        def write(message: Any, *, level: str = "info", **_fields: Any) -> None:
            self.logs.append((claim.key.block_id, level, message))

        return write

    def _report_due(self) -> bool:
        if not self._in_progress or self._in_progress[0][0] > self.clock.now():
            return False
        _, _, ended = heapq.heappop(self._in_progress)
        self.report(ended.claim, ended.outcome, ended.execution)
        return True

    def report(self, claim: Claim, outcome: Outcome, execution: Execution | None = None) -> None:
        """Report an outcome, of a handler or of an external worker."""
        block_id = claim.key.block_id
        with self._during(Point.BEFORE_COMMIT, Point.AFTER_COMMIT, block_id):
            finished = self.engine.finish([Report(claim=claim, outcome=outcome)], self._carry_on())
        self._unanswered.pop(claim.token, None)
        if execution is not None:
            execution.outcome = outcome
            execution.is_lost = bool(finished.stale)
        self._claimed += finished.claims
        self._ended[block_id] += 1
        nth = self._ended[block_id]
        while self._act_if(lambda when: when == After(block_id, nth)):
            pass

    def _carry_on(self) -> CarryOn | None:
        if not self.carries_on:
            return None
        silent = {
            step.handler
            for i, step in self.open_steps()
            if self.cast.knows(step.handler) and not self._is_played(i, step)
        }
        return CarryOn(
            worker=self._worker,
            queues=frozenset(step.queue for _, step in self.open_steps()) | {"default"},
            handlers=frozenset(self.cast.names()) - silent,
            instant=frozenset(self.cast.names()),
            limit=32,
            rounds_left=lambda _instance_id: 100,
        )

    def claim(self, instance_id: UUID, block_id: str) -> Claim:
        """Claim a ready step by hand, as an external worker does.

        Raises:
            LookupError: No such step is ready.
        """
        for owner, step in self.open_steps():
            if (owner, step.key.block_id, step.state) == (instance_id, block_id, StepState.READY):
                wish = Wish(queue=step.queue, handlers=(step.handler,))
                return self.engine.claim(self._worker, wish, step_id=step.id)[0]
        raise LookupError(f"step {block_id!r} is not ready")

    # -- time ------------------------------------------------------------------------------------------------------

    def _fire_due(self) -> bool:
        with self.store.transaction() as tx:
            due = tx.due_timers(_AT_ONCE)
        if not due:
            return False
        with self._during(Point.BEFORE_TIMER, Point.AFTER_TIMER, due[0].key.block_id):
            self.engine.fire(due)
        return True

    def _deliver_overdue(self) -> bool:
        with self.store.transaction() as tx:
            recipients = tx.overdue_letters(_AT_ONCE)
        if not recipients:
            return False
        self.engine.deliver(recipients)
        return True

    def _let_time_pass(self, until: datetime | None) -> bool:
        moments = [*self._next_moments()]
        moment = min(moments, default=None)
        if moment is None or moment > (until or self.started_at + LONGEST):
            if until is not None and self._is_open_ended():
                self.clock.move_to(until)
            return False
        self.clock.move_to(moment)
        with self.store.transaction() as tx:
            tx.beat_worker(_id(self._worker))
        return True

    def _next_moments(self) -> Iterator[datetime]:
        for rows in self.store.tables.instances.values():
            yield from rows.timers.values()
        yield from (letter.due_at for letter in self.store.tables.letters.values())
        if self._in_progress:
            yield self._in_progress[0][0]
        if self._is_open_ended():
            for planned in self.planned:
                if not planned.has_happened and isinstance(planned.when, datetime | timedelta):
                    yield self._moment(planned.when)

    def _is_open_ended(self) -> bool:
        return any(not rows.instance[None].state.is_terminal for rows in self.store.tables.instances.values())


def _id(worker: Worker) -> UUID:
    if worker.id is None:
        raise ValueError("a worker of the harness has an id")
    return worker.id
