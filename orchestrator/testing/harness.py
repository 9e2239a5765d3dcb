"""The front door of the harness: run a sequence, crash it everywhere, and ask what was never run."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import orjson

from orchestrator.catalogue import stored_form
from orchestrator.core.plan import Plan
from orchestrator.errors import Unprocessable
from orchestrator.exchange import NewInstance
from orchestrator.settings import Settings
from orchestrator.store.instances import Profile
from orchestrator.store.memory import VirtualClock
from orchestrator.store.memory.clock import START
from orchestrator.store.memory.tables import to_text
from orchestrator.testing.acts import Planned
from orchestrator.testing.coverage import Coverage
from orchestrator.testing.crashes import CrashPlan, Point
from orchestrator.testing.documents import Source, read_sequence
from orchestrator.testing.parts import Cast
from orchestrator.testing.run import Run
from orchestrator.testing.simulation import Simulation
from sequences.document import SequenceDefinition
from sequences.schemas import compile_schema
from sequences.shorthand import fingerprint

Parts = Mapping[str, Any]
Verdict = Callable[[Run], Any]
_MICROSECONDS: Final = re.compile(r"(?<=T\d\d:\d\d:\d\d\.\d{3})\d{3}")
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Harness:
    """Runs sequences in memory, with the engine of production, under a clock of its own.

    Args:
        handlers: Parts for every run; those that a run is given come before them. See `orchestrator.testing.parts`.
        sub_sequences: Sequences that others start by name.
        start: When runs begin; a Monday at noon UTC.
        seed: Of jitter and of random numbers; the same seed, the same run.
        settings: Of the engine: limits of sizes and losses.
    """

    def __init__(
        self,
        handlers: Parts | None = None,
        *,
        sub_sequences: Mapping[str, Source] | None = None,
        start: datetime = START,
        seed: int = 0,
        settings: Settings | None = None,
    ) -> None:
        self._handlers = dict(handlers or {})
        self._sub_sequences = dict(sub_sequences or {})
        self._start = start
        self._seed = seed
        self._settings = settings or Settings.model_construct()
        self._coverage: dict[str, Coverage] = {}

    def run(
        self,
        sequence: Source,
        data: Any = None,
        *,
        config: Any = None,
        handlers: Parts | None = None,
        signals: Iterable[Planned] = (),
        crash: CrashPlan | None = None,
        until: timedelta | str | datetime | None = None,
        sub_sequences: Mapping[str, Source] | None = None,
        session: Any = None,
        carries_on: bool = False,
        seed: int | None = None,
        metadata: Any = None,
        audit: Any = None,
        **request: Any,
    ) -> Run:
        """Start one instance and play it until it has ended, or nothing moves it any more.

        Args:
            sequence: See `orchestrator.testing.documents.read_sequence`.
            data: `context.data`.
            handlers: Parts, by the name of the handler.
            signals: What happens meanwhile: `at(...)`.
            crash: One crash: `crash_at(...)`.
            until: Stop at this moment, or this long after the start, although things still move; None for ten years.
            session: Data of a session that the instance is bound to; None for no session.
            carries_on: Let the worker claim the next step in the commit of an outcome, as production does; `before`
                does not see such a claim.
            request: Further members of the request: timezone, priority, dry_run, not_before, budget.

        Raises:
            DocumentError, InvalidArgument, LookupError: The sequence is not valid, or not there.
            Unprocessable: The data do not fit the sequence's `input_schema`.
            NobodyPlays: A step became ready whose handler has no part.
        """
        definition = read_sequence(sequence, self._start)
        check_input(definition, data)
        begun = _Begun(definition=definition)
        simulation = Simulation(
            cast=Cast({**self._handlers, **(handlers or {})}),
            settings=self._settings,
            clock=VirtualClock(self._start),
            act=begun.act,
            planned=[_fresh(planned) for planned in signals],
            carries_on=carries_on,
            crash=crash,
            seed=self._seed if seed is None else seed,
        )
        self._define(simulation, definition, {**self._sub_sequences, **(sub_sequences or {})})
        begun.run = self._begin(simulation, begun.plan, data, config, session, metadata, audit, request)
        try:
            begun.run.go(until)
        finally:
            self._note(begun.run)
        return begun.run

    def _define(self, simulation: Simulation, root: SequenceDefinition, others: Mapping[str, Source]) -> None:
        definitions = simulation.store.tables.definitions
        definitions[root.id] = stored_form(root)
        for name, source in others.items():
            found = read_sequence(source, self._start, name=name)
            mine = found.model_copy(update={"tenant_id": root.tenant_id, "namespace": root.namespace, "name": name})
            definitions[mine.id] = stored_form(mine)

    def _begin(
        self,
        simulation: Simulation,
        plan: Plan,
        data: Any,
        config: Any,
        session: Any,
        metadata: Any,
        audit: Any,
        request: Mapping[str, Any],
    ) -> Run:
        session_id: UUID | None = None
        if session is not None:
            session_id = uuid4()
            simulation.store.tables.sessions[session_id] = to_text(session)
        new = NewInstance(
            sequence_id=plan.definition.id,
            tenant_id=plan.definition.tenant_id,
            namespace=plan.definition.namespace,
            profile=Profile(data={} if data is None else data, config=config, metadata=metadata, audit=audit),
            session_id=session_id,
            **request,
        )
        return Run(simulation, simulation.engine.start_many([new])[0].id, plan)

    def _note(self, run: Run) -> None:
        name = fingerprint(run.plan.definition)
        self._coverage.setdefault(name, Coverage(run.plan)).note(run)

    def coverage(self, sequence: Source | Run | None = None) -> Coverage:
        """Tell what the runs of a sequence have gone through; of the only one, if none is given.

        Raises:
            LookupError: Nothing of it was run, or there are several and none is given.
        """
        if sequence is None:
            if len(self._coverage) != 1:
                raise LookupError(f"name the sequence: {len(self._coverage)} were run")
            return next(iter(self._coverage.values()))
        definition = sequence.plan.definition if isinstance(sequence, Run) else read_sequence(sequence, self._start)
        return self._coverage[fingerprint(definition)]

    def every_crash(
        self,
        sequence: Source,
        data: Any = None,
        *,
        handlers: Parts | Callable[[], Parts] | None = None,
        compare: Verdict | None = None,
        points: Sequence[Point | str] = tuple(Point),
        **options: Any,
    ) -> "Crashes":
        """Crash a sequence once at every point it passes, and expect that nobody can tell afterwards.

        The run without a crash says which points there are; then it is repeated with a crash at each of them, with and
        without carrying on, and with a worker that was thought dead and reports late. Each must end as the first did,
        and no step may have more than one committed outcome for each of its executions. Where things happen at one
        moment, a crash may change who is first: give such handlers a duration (`takes`), or say with `compare` what
        counts.

        Args:
            handlers: Parts; or a function that makes new ones for each run, for those that remember.
            compare: What of a run must be equal; state, output rows, data and key-value state if it is None.
            points: Only these.
            options: Those of `run`.

        Raises:
            AssertionError: A crash made a difference; the message tells which, and shows both trees.
        """
        made: Callable[[], Parts] = handlers if callable(handlers) else lambda: handlers or {}
        verdict = compare or what_remains
        tried = 0
        wanted = {Point(point) for point in points}
        signals = tuple(options.pop("signals", ()))
        for carries_on in (False, True):
            settled = {**options, "carries_on": carries_on}
            whole = self.run(sequence, data, handlers=made(), signals=signals, **settled)
            for plan in crash_plans(whole, wanted):
                run = self.run(sequence, data, handlers=made(), signals=signals, crash=plan, **settled)
                tried += 1
                _expect_same(whole, run, plan, verdict)
        return Crashes(schedules=tried)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashes:
    """How many crashes a sequence has survived."""

    schedules: int


@dataclass(slots=True, kw_only=True)
class _Begun:
    """The run that planned acts belong to, once it has begun."""

    definition: SequenceDefinition
    run: Run | None = None
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        self.plan = Plan(self.definition)

    def act(self, planned: Planned) -> None:
        if self.run is None:
            raise RuntimeError("nothing has begun yet")
        planned.act(self.run)


def _fresh(planned: Planned) -> Planned:
    return Planned(when=planned.when, act=planned.act, name=planned.name)


def check_input(definition: SequenceDefinition, data: Any) -> None:
    """Refuse data that do not fit the sequence's `input_schema`, as the API does."""
    schema = stored_form(definition).document.get("input_schema")
    if schema is None:
        return
    violations = compile_schema(schema).violations({} if data is None else data)
    if violations:
        raise Unprocessable(f"context.data failed input_schema validation: {'; '.join(violations)}")


def crash_plans(whole: Run, points: set[Point]) -> list[CrashPlan]:
    """Plan one crash for each passing of a point by a run."""
    plans = []
    for passing in whole.passed:
        if passing.point in points:
            plan = CrashPlan(point=passing.point, step=passing.block_id, nth=passing.nth)
            plans.append(plan)
            if passing.point is Point.AFTER_HANDLER:
                plans.append(CrashPlan(point=plan.point, step=plan.step, nth=plan.nth, reports_late=True))
    return plans


def what_remains(run: Run) -> Any:
    """Give what must not depend on a crash: state, outputs by block and iteration, data, key-value state.

    Times in them count to the millisecond, as events of one instance are set a microsecond apart and a crash is one
    more; and an id is as good as another, as they are made anew.
    """
    rows = sorted((row.block_id, row.iteration, row.ref or "", _text(row.output)) for row in run.rows)
    return {"state": str(run.state), "outputs": rows, "data": _text(run.data), "kv": _text(run.kv)}


def _text(value: Any) -> str:
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return _ID.sub("<id>", _MICROSECONDS.sub("", text))


def _expect_same(whole: Run, run: Run, plan: CrashPlan, verdict: Verdict) -> None:
    if not run.crashes:
        raise AssertionError(f"the run never came to the point: {plan}\n\n{run.tree}")
    problems = [f"`{key}` has {count} committed outcomes" for key, count in _committed_too_often(whole, run)]
    expected, found = verdict(whole), verdict(run)
    if expected != found:
        problems += _differences(expected, found)
    if problems:
        text = "\n".join([f"a crash {plan} made a difference:", *problems])
        raise AssertionError(f"{text}\n\nwithout it:\n{whole.tree}\n\nwith it:\n{run.tree}")


def _differences(expected: Any, found: Any) -> list[str]:
    if not (isinstance(expected, dict) and isinstance(found, dict)):
        return [f"  expected {expected!r}", f"  found    {found!r}"]
    return [
        f"  {name}: expected {expected.get(name)!r}, found {found.get(name)!r}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]


def _committed_too_often(whole: Run, run: Run) -> list[tuple[str, int]]:
    allowed, found = _commits(whole), _commits(run)
    return [(str(key), count) for key, count in found.items() if count > max(1, allowed.get(key, 0))]


def _commits(run: Run) -> dict[tuple[str, tuple[int, ...]], int]:
    counted: dict[tuple[str, tuple[int, ...]], int] = {}
    for attempt in run.attempts:
        if attempt.outcome == "completed":
            counted[attempt.key] = counted.get(attempt.key, 0) + 1
    return counted
