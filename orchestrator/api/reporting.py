"""What workers report of their tasks: reports of a tenant that arrive together share a transaction.

Of a group no report fails for another one: who has lost a lease is refused before, and a transaction that fails is
undone and each report committed alone. Only an answer that is lost on the way to the store fails all of them, for
nothing is known.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final
from uuid import UUID

import anyio.to_thread
from starlette.responses import Response

from orchestrator.api.auth import Caller
from orchestrator.api.bodies import READ_AT_ONCE, RawBody
from orchestrator.api.gathering import together_or_alone
from orchestrator.api.leases import find_held
from orchestrator.api.services import Services
from orchestrator.api.step_logs import store_logs
from orchestrator.api.task_shapes import TaskReport
from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Failed, Outcome
from orchestrator.credential_use import cleared, without
from orchestrator.engine import Engine
from orchestrator.errors import Conflict
from orchestrator.exchange import Report
from orchestrator.store.leases import HeldTask

MAX_MESSAGE_CHARACTERS: Final = 4096
"""As for handlers of our own workers: a failure is read in lists and logs."""
LEASE_CHANGED: Final = "worker task lease changed"
_TRIES: Final = 2
"""A report whose claim has ended between the look at it and the commit is looked at once more."""


async def reported(serving: Services, caller: Caller, body: RawBody, read: Callable[[RawBody], TaskReport]) -> Response:
    """Commit a report; 200 without effect when the instance was ended or paused under the worker's hands.

    A large one is read in a thread, and committed alone: nobody waits for it.

    Raises:
        RequestError: The body, or the lease, is not right.
        StoreUnavailable: The store did not answer; whether the report took effect is unknown.
    """
    if len(body.content) > READ_AT_ONCE:
        await anyio.to_thread.run_sync(_read_and_commit, serving, caller, body, read)
    else:
        await serving.reports.do(caller.tenant, partial(commit, serving, caller.tenant), read(body))
    return Response()


def _read_and_commit(serving: Services, caller: Caller, body: RawBody, read: Callable[[RawBody], TaskReport]) -> None:
    [refusal] = commit(serving, caller.tenant, [read(body)])
    if refusal is not None:
        raise refusal


def commit(serving: Services, tenant: str | None, reports: Sequence[TaskReport]) -> list[Exception | None]:
    """Commit reports, each as if it were alone; gives why each was refused, None if it was not.

    Reports of the same task are committed one after the other.
    """
    refusals: dict[int, Exception | None] = {}
    while left := [number for number in range(len(reports)) if number not in refusals]:
        first: dict[UUID, int] = {}
        for number in left:
            first.setdefault(reports[number].task_id, number)
        found = _commit_distinct(serving, tenant, [reports[number] for number in first.values()])
        refusals |= {number: found[task_id] for task_id, number in first.items()}
    return [refusals[number] for number in range(len(reports))]


def _commit_distinct(
    serving: Services, tenant: str | None, reports: Sequence[TaskReport]
) -> dict[UUID, Exception | None]:
    """Commit reports of different tasks."""
    answers: dict[UUID, Exception | None] = {}
    for _ in range(_TRIES):
        found = together_or_alone(lambda some: find_held(serving, tenant, some, LEASE_CHANGED), reports)
        claims: dict[UUID, Claim] = {}
        for report, held in zip(reports, found, strict=True):
            if isinstance(held, HeldTask):
                claims[report.task_id] = held.claim
            else:
                answers[report.task_id] = held
        answers |= _finish(serving, [each for each in reports if each.task_id in claims], claims)
        reports = [each for each in reports if each.task_id not in answers]
        if not reports:
            break
    return answers | {report.task_id: Conflict(LEASE_CHANGED) for report in reports}


def _finish(
    serving: Services, reports: Iterable[TaskReport], claims: Mapping[UUID, Claim]
) -> dict[UUID, Exception | None]:
    """Commit reports of claims; those whose claim has ended meanwhile are left out."""
    answers: dict[UUID, Exception | None] = {}
    ready = []
    for report in reports:
        try:
            ready.append(_cleared(serving, report, claims[report.task_id]))
        except Exception as error:  # noqa: BLE001 - of this report alone, whose worker is told
            answers[report.task_id] = error
    outcomes = together_or_alone(lambda some: _stored(serving.engine, some, claims), ready)
    for report, outcome in zip(ready, outcomes, strict=True):
        if isinstance(outcome, Exception):
            answers[report.task_id] = outcome
        elif outcome:
            claim = claims[report.task_id]
            store_logs(serving, claim.instance_id, claim.key.block_id, report.logs)
            answers[report.task_id] = None
    return answers


def _stored(engine: Engine, reports: Sequence[TaskReport], claims: Mapping[UUID, Claim]) -> list[bool]:
    """Commit reports, all or none; tells which of them have changed something."""
    finished = engine.finish([Report(claim=claims[each.task_id], outcome=each.outcome) for each in reports])
    stale = {claim.token for claim in finished.stale}
    return [claims[each.task_id].token not in stale for each in reports]


def _cleared(serving: Services, report: TaskReport, claim: Claim) -> TaskReport:
    """Clear what a worker says of a failure, and what it logs, of the credentials that it was given."""
    outcome, logs = report.outcome, report.logs
    if not isinstance(outcome, Failed) and not logs:
        return report
    for each in serving.engine.inputs([claim]):
        work = serving.credential_use.known(each)
        outcome, logs = cleared(outcome, work), without(logs, work.secrets)
    return replace(report, outcome=_shortened(outcome), logs=logs)


def _shortened(outcome: Outcome) -> Outcome:
    """Keep the beginning of a message; once it is cleared, for half a secret would not be found any more."""
    if isinstance(outcome, Failed) and len(outcome.message) > MAX_MESSAGE_CHARACTERS:
        return replace(outcome, message=outcome.message[:MAX_MESSAGE_CHARACTERS])
    return outcome
