"""What really happened to one instance of `library_index`, as the store has it, and whether it is what we promise.

Nothing here was counted while it happened. `read` takes the rows, `Facts` is plain arithmetic on them, `judge` says of
each promise whether the rows bear it out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from orchestrator.core.gates import GATE_MARK
from orchestrator.store import instances
from orchestrator.store.session import Store

Place = tuple[str, tuple[int, ...]]
"""A step of one round of the loop: its block and the number of the item."""

FOR_EACH = "modules"
INDEX = "index"
QUARANTINE = "quarantine"
WORK_QUEUE = "gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A stored output of a handler; `place` names the execution of a step it belongs to."""

    place: Place
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of a handler, as its history row has it; `outcome` is `completed`, `failed`, `lost` …"""

    place: Place
    queue: str
    outcome: str
    worker_id: UUID | None
    claimed_at: datetime
    ended_at: datetime
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Something that must be true at the end, and what was found instead if it is not."""

    text: str
    is_kept: bool
    found: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The rows of one instance, and what follows from them."""

    state: str
    outputs: tuple[Output, ...]
    attempts: tuple[Attempt, ...]

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Modules that were found, in the order of the loop."""
        return next((tuple(output.value["paths"]) for output in self.outputs if output.place[0] == "find"), ())

    @cached_property
    def indexed(self) -> tuple[str, ...]:
        """Modules with a stored record."""
        return tuple(output.value["path"] for output in self._of(INDEX))

    @cached_property
    def quarantined(self) -> tuple[str, ...]:
        """Modules with a stored reason why there is no record."""
        return tuple(output.value["path"] for output in self._of(QUARANTINE))

    @cached_property
    def report(self) -> dict[str, Any] | None:
        """What the last step said it has published; None if it did not."""
        return next((output.value for output in self._of("publish")), None)

    @cached_property
    def failed(self) -> tuple[Attempt, ...]:
        """Executions that ended in a failure of the handler."""
        return self._ended("failed")

    @cached_property
    def lost(self) -> tuple[Attempt, ...]:
        """Executions whose worker died."""
        return self._ended("lost")

    @cached_property
    def shifts(self) -> tuple[UUID, ...]:
        """Workers that served the work queue, in the order they came."""
        return tuple(dict.fromkeys(a.worker_id for a in self._by_claim() if a.worker_id and a.queue == WORK_QUEUE))

    @property
    def last_commit_before(self) -> datetime | None:
        """When the first worker of the work queue committed for the last time; None if it never did."""
        return max((a.ended_at for a in self._committed_by(self.shifts[:1])), default=None)

    @property
    def first_commit_after(self) -> datetime | None:
        """When another worker of the work queue committed for the first time; None if none did."""
        return min((a.ended_at for a in self._committed_by(self.shifts[1:])), default=None)

    @property
    def seconds_lost(self) -> float | None:
        """How long the work queue stood still; None if nothing was committed on either side of the kill."""
        before, after = self.last_commit_before, self.first_commit_after
        return None if before is None or after is None else (after - before).total_seconds()

    @property
    def seconds(self) -> float:
        """From the first claim to the last commit of the loop."""
        inside = [attempt for attempt in self.attempts if attempt.place[1]]
        if not inside:
            return 0.0
        return (max(a.ended_at for a in inside) - min(a.claimed_at for a in inside)).total_seconds()

    @property
    def steps_per_second(self) -> float:
        """Committed outputs of the loop over its time, the stand-still included."""
        committed = sum(bool(output.place[1]) for output in self.outputs)
        return committed / self.seconds if self.seconds else 0.0

    def name(self, place: Place) -> str:
        """Name an execution of a step so that a reader knows which one it was."""
        block_id, iteration = place
        return f"{block_id} of {self.paths[iteration[0]]}" if iteration else block_id

    def _of(self, block_id: str) -> Iterator[Output]:
        return (output for output in self.outputs if output.place[0] == block_id)

    def _ended(self, outcome: str) -> tuple[Attempt, ...]:
        return tuple(attempt for attempt in self.attempts if attempt.outcome == outcome)

    def _by_claim(self) -> list[Attempt]:
        return sorted(self.attempts, key=lambda attempt: attempt.claimed_at)

    def _committed_by(self, workers: Sequence[UUID]) -> list[Attempt]:
        return [
            attempt
            for attempt in self.attempts
            if attempt.queue == WORK_QUEUE and attempt.worker_id in workers and attempt.outcome != "lost"
        ]


def read(store: Store, instance_id: UUID) -> Facts:
    """Read everything the store keeps of an instance.

    Raises:
        LookupError: There is no such instance.
    """
    with store.transaction() as tx:
        record = instances.get(tx, instance_id)
        outputs = instances.outputs(tx, instance_id)
        attempts = instances.attempts(tx, instance_id)
    if record is None:
        raise LookupError(f"there is no instance {instance_id}")
    return Facts(
        state=record.instance.state,
        outputs=tuple(_output(row) for row in outputs if _is_of_handler(row)),
        attempts=tuple(_attempt(row) for row in attempts),
    )


def progress(store: Store, instance_id: UUID) -> tuple[int, int]:
    """Read how many modules are done and how many there are; both 0 before they were found."""
    with store.transaction() as tx:
        memories = [row[5] for row in instances.newest_nodes(tx, instance_id) if row[0] == FOR_EACH]
    return (memories[0]["finished"], memories[0]["total"]) if memories else (0, 0)


def in_flight(store: Store, instance_id: UUID) -> tuple[Place, ...]:
    """Read which steps of the work queue are in the hands of a worker."""
    with store.transaction() as tx:
        rows = instances.open_steps(tx, instance_id)
    return tuple((row[0], tuple(row[1])) for row in rows if row[0] == INDEX and row[2] == "claimed")


def judge(facts: Facts) -> tuple[Promise, ...]:
    """Hold the facts against what is promised."""
    return (
        Promise(text="the instance completed", is_kept=facts.state == "completed", found=f"it is {facts.state}"),
        _every_module_once(facts),
        _every_output_once(facts),
        _every_execution_accounted(facts),
        _only_the_killed_lost(facts),
        _reasons_belong(facts),
        Promise(
            text="work went on after the kill",
            is_kept=facts.seconds_lost is not None,
            found=f"{len(facts.shifts)} worker(s) committed on the queue {WORK_QUEUE!r}",
        ),
        _report_covers_all(facts),
    )


def _every_module_once(facts: Facts) -> Promise:
    ended = Counter(facts.indexed + facts.quarantined)
    return Promise(
        text="every module found is either indexed or quarantined, once",
        is_kept=bool(facts.paths) and ended == Counter(facts.paths),
        found=f"{len(facts.paths)} found, {len(facts.indexed)} indexed, {len(facts.quarantined)} quarantined",
    )


def _every_output_once(facts: Facts) -> Promise:
    stored = Counter(output.place for output in facts.outputs)
    completed = Counter(attempt.place for attempt in facts.attempts if attempt.outcome == "completed")
    differing = [place for place in stored | completed if stored[place] != 1 or completed[place] != 1]
    return Promise(
        text="each output was committed once, by one execution that completed",
        is_kept=bool(stored) and not differing,
        found=_some([facts.name(place) for place in differing]),
    )


def _every_execution_accounted(facts: Facts) -> Promise:
    """Compare executions with outputs: what is above them failed for good into quarantine, or was lost to the kill."""
    above = len(facts.attempts) - len(facts.outputs)
    return Promise(
        text="executions = outputs + modules quarantined + executions lost to the kill",
        is_kept=above == len(facts.quarantined) + len(facts.lost) == len(facts.failed) + len(facts.lost),
        found=f"{above} executions without an output: {len(facts.failed)} failed, {len(facts.lost)} lost",
    )


def _only_the_killed_lost(facts: Facts) -> Promise:
    killed = facts.shifts[:1]
    strange = [attempt for attempt in facts.lost if attempt.worker_id not in killed]
    repeated = [place for place, count in Counter(attempt.place for attempt in facts.attempts).items() if count > 1]
    lost = {attempt.place for attempt in facts.lost}
    strangers = [facts.name(attempt.place) for attempt in strange]
    strangers += [facts.name(place) for place in repeated if place not in lost]
    return Promise(
        text="nothing was executed twice but steps in flight in the killed worker",
        is_kept=not strangers,
        found=_some(strangers),
    )


def _reasons_belong(facts: Facts) -> Promise:
    """Compare each quarantined reason with the failure of the same round: concurrent rounds must not mix theirs up."""
    errors = {attempt.place[1]: attempt.error for attempt in facts.failed}
    wrong = [
        facts.name(output.place)
        for output in facts.outputs
        if output.place[0] == QUARANTINE
        and (
            output.value["reason"] != errors.get(output.place[1])
            or output.value["path"] != facts.paths[output.place[1][0]]
        )
    ]
    return Promise(text="each quarantined module has its own error", is_kept=not wrong, found=_some(wrong))


def _report_covers_all(facts: Facts) -> Promise:
    report = facts.report or {}
    covered = (report.get("indexed"), report.get("quarantined"))
    return Promise(
        text="the report covers every record",
        is_kept=covered == (len(facts.indexed), len(facts.quarantined)),
        found=f"it covers {covered[0]} and {covered[1]}" if report else "there is no report",
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _is_of_handler(row: Sequence[Any]) -> bool:
    """Tell a handler's output from the loop's own progress and from what a person answered."""
    is_answer = isinstance(row[2], dict) and row[2].get(GATE_MARK) is True
    return row[1] != FOR_EACH and row[3] is None and not is_answer


def _output(row: Sequence[Any]) -> Output:
    return Output(place=(row[1], tuple(row[7])), value=row[2])


def _attempt(row: Sequence[Any]) -> Attempt:
    error = row[9]
    return Attempt(
        place=(row[0], tuple(row[1])),
        queue=row[4],
        outcome=row[5],
        worker_id=row[6],
        claimed_at=row[7] or row[8],
        ended_at=row[8],
        error=error.get("message") if isinstance(error, dict) else None,
    )
