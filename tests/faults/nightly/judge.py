"""Holds a round against every promise, and counts on how many things each was checked: none would prove nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults import checkers
from tests.faults.checkers import Found
from tests.faults.journey import EFFECTS, STEPS, Fault, Output, Run, ordered_steps

GRACE_SECONDS = 8.0
"""Until so long after the healing a worker that stood still may yet be taken for dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one promise: on how many things it was checked, and where it was broken."""

    checked: int
    broken: Found = field(default_factory=list)


def judge(run: Run, faults: Sequence[Fault], before: Sequence[Output]) -> dict[str, Verdict]:
    """Hold the instances of a round against what can be told from their record.

    Args:
        run: All that is known of them, now that they have ended.
        faults: What has hit them.
        before: Outputs that were stored before the fault.
    """
    timed = sum(attempt.key.block_id in {"late", "asleep", "again"} for attempt in run.attempts)
    return {
        "I1 every accepted instance ends": Verdict(
            checked=len(run.accepted), broken=checkers.every_accepted_instance_has_ended(run)
        ),
        "I2 each step has one outcome": Verdict(
            checked=len(run.expected), broken=checkers.every_step_has_one_outcome(run)
        ),
        "I2 outputs never change": Verdict(
            checked=len(before), broken=checkers.outputs_never_change(before, run.outputs)
        ),
        "I2 what was read is what is stored": Verdict(
            checked=sum(len(each.seen or {}) for each in run.executions),
            broken=checkers.what_was_seen_is_what_is_stored(run),
        ),
        "I3 nothing runs after its commit": Verdict(
            checked=len(run.executions), broken=checkers.nothing_runs_after_its_commit(run)
        ),
        "I3 only what was in flight runs again": Verdict(
            checked=len(run.executions), broken=checkers.only_what_was_in_flight_runs_again(run, *faults)
        ),
        "I4 tokens are used once": Verdict(checked=len(run.attempts), broken=checkers.tokens_are_used_once(run)),
        "I5 steps run in order": Verdict(
            checked=sum(len(ordered_steps(each)) for each in run.accepted), broken=checkers.steps_run_in_order(run)
        ),
        "I8 timers are never early": Verdict(checked=timed, broken=checkers.timers_are_never_early(run)),
        "enough was done": Verdict(
            checked=1,
            broken=checkers.enough_was_done(
                run, outputs=len(run.accepted) * STEPS, executions=len(run.accepted) * EFFECTS
            ),
        ),
    }


def minimums(rounds: int, faults: int) -> dict[str, int]:
    """Say on how many things each promise must have been checked: a dead run must not pass."""
    instances = 5 * rounds
    return {
        "I1 every accepted instance ends": instances,
        "I2 each step has one outcome": instances * STEPS,
        "I2 outputs never change": instances,
        "I2 what was read is what is stored": instances,
        "I3 nothing runs after its commit": instances * EFFECTS,
        "I3 only what was in flight runs again": instances * EFFECTS,
        "I4 tokens are used once": instances * STEPS,
        "I4 stale reports are refused": faults // 20,
        "I5 steps run in order": instances,
        "I8 timers are never early": instances,
        "I12 work goes on after the healing": faults,
        "no process ends by itself": faults,
    }


def too_few(counts: Mapping[str, int], rounds: int, faults: int) -> Found:
    """Name the promises that were checked too seldom."""
    return [
        f"{promise}: checked on {counts.get(promise, 0)} things, expected {least}"
        for promise, least in minimums(rounds, faults).items()
        if counts.get(promise, 0) < least
    ]
