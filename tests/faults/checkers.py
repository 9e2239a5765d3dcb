"""Judges of a run. Each returns what it found wrong; an empty list is a promise kept.

The names of the promises are those of RELIABILITY: I1 accepted = terminal, I2 one outcome, I3 nothing after its commit,
I4 stale tokens refused, I5 order, I8 timers never early, I12 work goes on soon.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import zip_longest

from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Completed
from orchestrator.engine import Engine
from orchestrator.exchange import Report
from tests.faults.journey import (
    BACKOFF_SECONDS,
    DELAY_SECONDS,
    SLEEP_SECONDS,
    Fault,
    Output,
    Run,
    StepKey,
    ordered_steps,
)
from tests.support.effects import Execution

Found = list[str]

CLOCK_SECONDS = 0.005
"""A process carries the database's clock forward with its own; both are read at slightly different moments."""


def every_accepted_instance_has_ended(run: Run) -> Found:
    """I1: none is lost, none is stuck, none is parked by a fault that was not its own."""
    wrong = [f"{i} was accepted and is gone" for i in run.accepted if i not in run.states]
    wrong += [f"{i} is {state}, parked: {run.parked[i]}" for i, state in run.states.items() if state != "completed"]
    return wrong


def every_step_has_one_outcome(run: Run) -> Found:
    """I2: exactly one output row and one completed attempt for each step that must complete."""
    stored = Counter(output.key for output in run.outputs)
    completed = Counter(attempt.key for attempt in run.attempts if attempt.outcome == "completed")
    return [
        f"{key.text}: {stored[key]} outputs, {completed[key]} completed attempts"
        for key in dict.fromkeys([*run.expected, *stored, *completed])
        if stored[key] != 1 or completed[key] != 1
    ]


def outputs_never_change(before: Sequence[Output], after: Sequence[Output]) -> Found:
    """I2: what was stored once reads the same for ever."""
    now = {output.id: output.digest for output in after}
    return [
        f"{output.key.text}: {output.digest[:8]} became {now.get(output.id, 'nothing')[:8]}"
        for output in before
        if now.get(output.id) != output.digest
    ]


def what_was_seen_is_what_is_stored(run: Run) -> Found:
    """I2: later steps have read the very output that is stored, and it came from an execution that really was."""
    stored = {output.key.text: output.nonce for output in run.outputs if output.nonce is not None}
    nonces = {execution.nonce for execution in run.executions}
    wrong = [f"{key}: stored nonce {nonce} was never made" for key, nonce in stored.items() if nonce not in nonces]
    for execution in run.executions:
        owner = execution.key.partition(":")[0]
        for block_id, seen in (execution.seen or {}).items():
            if stored.get(f"{owner}:{block_id}") != seen:
                wrong.append(f"{execution.key} has seen {seen} of {block_id}, stored is another")
    return wrong


def nothing_runs_after_its_commit(run: Run) -> Found:
    """I3: no execution begins once the output of its step is stored."""
    stored = {output.key.text: output for output in reversed(run.outputs)}  # the first one, if there are several
    return [
        f"{execution.key} began {late:.3f} s after its output was stored"
        for execution in run.executions
        if (output := stored.get(execution.key)) is not None
        and execution.nonce != output.nonce
        and (late := execution.started_at - output.created_at.timestamp()) > CLOCK_SECONDS
    ]


def only_what_was_in_flight_runs_again(run: Run, *faults: Fault) -> Found:
    """I3: an attempt is executed twice only if a fault hit it, and no more of them than could be running.

    Quick steps are run one after the other and committed together: what one process has lost at one moment counts once.
    """
    outcomes = {
        (attempt.key.text, attempt.attempt): attempt.ended_at.timestamp()
        for attempt in run.attempts
        if attempt.outcome in {"completed", "failed"}
    }
    executions: defaultdict[tuple[str, int], list[Execution]] = defaultdict(list)
    for execution in run.executions:
        executions[execution.key, execution.attempt].append(execution)
    losses: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for attempt in run.attempts:
        if attempt.outcome == "lost":
            losses[attempt.key.text, attempt.attempt].append(attempt.ended_at.timestamp())
    wrong, count, again = [], 0, set()
    for name, of_one in executions.items():
        count += len(of_one) - 1
        ended_at = outcomes.get(name, float("inf"))
        formers = sorted(of_one, key=lambda each: each.started_at)[:-1]
        for former, lost_at in zip_longest(formers, sorted(losses[name])[: len(formers)]):
            again.add((former.pid, former.nonce if lost_at is None else lost_at))
            if not any(
                former.started_at <= fault.ended_at and ended_at >= fault.began_at - CLOCK_SECONDS for fault in faults
            ):
                names = " or ".join(fault.name for fault in faults)
                wrong.append(f"{name} ran again although {names} had not touched it")
    allowed = sum(fault.may_run_again for fault in faults)
    if len(again) > allowed:
        wrong.append(
            f"{count} executions were repeated, lost by {len(again)} processes; "
            f"at most {allowed} can have had some in flight"
        )
    return wrong


def stale_reports_are_refused(engine: Engine, stale: Iterable[Claim], outputs: Callable[[], int]) -> Found:
    """I4: the report of a claim that has ended is refused and changes nothing."""
    wrong = []
    for claim in stale:
        before = outputs()
        finished = engine.finish([Report(claim=claim, outcome=Completed(output={"nonce": "stale"}))])
        if claim not in finished.lost or outputs() != before:
            wrong.append(f"a stale report for {claim.key} was accepted")
    return wrong


def tokens_are_used_once(run: Run) -> Found:
    """I4: no outcome was committed under a token that had ended before."""
    ended = Counter(attempt.token for attempt in run.attempts if attempt.token is not None)
    return [f"token {token} ended {times} attempts" for token, times in ended.items() if times > 1]


def timers_are_never_early(run: Run) -> Found:
    """I8: delays, back-offs and sleeps last at least as long as they should."""
    wrong = []
    by_key: defaultdict[StepKey, list[tuple[float, float, str]]] = defaultdict(list)
    for attempt in run.attempts:
        if attempt.claimed_at is not None:
            by_key[attempt.key].append((attempt.claimed_at.timestamp(), attempt.ended_at.timestamp(), attempt.outcome))
    for key, attempts in by_key.items():
        waited: list[tuple[str, float, float]] = []
        if key.block_id == "late" and key in run.began:
            waited.append(("delay", attempts[0][0] - run.began[key].timestamp(), DELAY_SECONDS))
        if key.block_id == "asleep":
            waited += [
                ("sleep", end - claimed, SLEEP_SECONDS) for claimed, end, what in attempts if what == "completed"
            ]
        if key.block_id == "again":
            failures = [end for _, end, outcome in attempts if outcome == "failed"]
            after = [claimed for claimed, _, _ in attempts if failures and claimed > failures[0]]
            waited += [("back-off", min(after) - failures[0], BACKOFF_SECONDS)] if after else []
        wrong += [
            f"{key.text}: {what} of {least:g} s was over after {seconds:.4f} s"
            for what, seconds, least in waited
            if seconds < least
        ]
    return wrong


def steps_run_in_order(run: Run) -> Found:
    """I5: no execution of a step begins before the execution that made the outcome of the step before it has ended."""
    made = {(execution.key, execution.nonce): execution for execution in run.executions}
    ended = {
        output.key: execution.ended_at
        for output in run.outputs
        if (execution := made.get((output.key.text, output.nonce or ""))) is not None
    }
    begun: dict[str, float] = {}
    for execution in run.executions:
        begun[execution.key] = min(execution.started_at, begun.get(execution.key, float("inf")))
    return [
        f"{after.text} began before {before.text} had ended"
        for instance_id in run.accepted
        for before, after in ordered_steps(instance_id)
        if (end := ended.get(before)) is not None and begun.get(after.text, end) < end
    ]


def recovery_seconds(run: Run, held: Sequence[StepKey], died_at: float) -> dict[StepKey, float]:
    """Measure, for each step a dead worker held, the time from the death to its next committed outcome."""
    seconds: dict[StepKey, float] = {}
    for attempt in run.attempts:
        after = attempt.ended_at.timestamp() - died_at
        if attempt.key in held and attempt.outcome in {"completed", "failed"} and after > 0:
            seconds.setdefault(attempt.key, after)
    return seconds


def work_goes_on_within(limit: timedelta, run: Run, held: Sequence[StepKey], died_at: float) -> Found:
    """I12: what a dead worker held is done by another one in time."""
    measured = recovery_seconds(run, held, died_at)
    wrong = [f"{key.text} was never done" for key in held if key not in measured]
    return wrong + [
        f"{key.text} was done {seconds:.2f} s after the death"
        for key, seconds in measured.items()
        if seconds > limit.total_seconds()
    ]


def enough_was_done(run: Run, *, outputs: int, executions: int) -> Found:
    """A run that did nothing has broken no promise; it must not pass either."""
    wrong = []
    if len(run.outputs) < outputs:
        wrong.append(f"only {len(run.outputs)} outputs, expected {outputs}")
    if len(run.executions) < executions:
        wrong.append(f"only {len(run.executions)} executions, expected {executions}")
    return wrong
