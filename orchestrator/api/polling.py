"""Polls of HTTP workers: those that ask for the same tasks, and come while a claim is under way, share the next one.

Its tasks are dealt out in the order in which the workers have asked, the oldest first, as if they had been served one
after the other. Each row names the worker it was claimed for: what one that has gone was given comes back with its
lease.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import anyio.to_thread
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller
from orchestrator.api.gathering import MOST, together_or_alone
from orchestrator.api.pollers import Poller, Wanted
from orchestrator.api.services import Services
from orchestrator.api.task_shapes import Poll
from orchestrator.api.task_views import open_task_view
from orchestrator.catalogue import MAX_LONG_NAME_BYTES, MAX_NAME_BYTES
from orchestrator.core.outcomes import FailureKind
from orchestrator.core.steps import runs_in_process
from orchestrator.errors import InvalidArgument
from orchestrator.exchange import Report
from orchestrator.store import tasks
from orchestrator.store.leases import HeldTask
from orchestrator.versions import rank_of

MAX_CLAIMED_AT_ONCE: Final = 1000
GATHERED_LIMIT: Final = MAX_CLAIMED_AT_ONCE // MOST
"""Whoever asks for more tasks than this claims them alone, so a group claims no more than one poll may."""


async def hand_out(serving: Services, caller: Caller, request: Poll, queue: str | None) -> Response:
    """Claim tasks for a worker, and show them with their inputs.

    Raises:
        InvalidArgument: A name is too long.
        StoreUnavailable: The store did not answer; what was claimed then comes back with its lease.
    """
    _check_names(request, queue)
    wanted = Wanted(
        tenant=caller.tenant,
        handler=request.handler_name,
        queue=queue,
        rank=None if request.version is None else rank_of(request.version),
    )
    poller = Poller(worker=request.worker_id, limit=min(request.limit, MAX_CLAIMED_AT_ONCE), version=request.version)
    if poller.limit > GATHERED_LIMIT:
        return await anyio.to_thread.run_sync(_alone, serving, wanted, poller)
    return await serving.polls.do(wanted, partial(deal_out, serving, wanted), poller)


def _check_names(request: Poll, queue: str | None) -> None:
    limits = {"worker_id": MAX_NAME_BYTES, "handler_name": MAX_LONG_NAME_BYTES}
    for name, limit in limits.items():
        if len(getattr(request, name).encode()) > limit:
            raise InvalidArgument(f"{name} is longer than {limit} bytes")
    if request.version is not None and len(request.version.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(f"version is longer than {MAX_NAME_BYTES} bytes")
    if queue is not None and len(queue.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(f"queue_name is longer than {MAX_NAME_BYTES} bytes")


def _alone(serving: Services, wanted: Wanted, poller: Poller) -> Response:
    [answer] = deal_out(serving, wanted, [poller])
    if isinstance(answer, Exception):
        raise answer
    return answer


def deal_out(serving: Services, wanted: Wanted, pollers: Sequence[Poller]) -> Sequence[Response | Exception]:
    """Answer workers that ask for the same tasks; gives what each is answered, or why it cannot be."""
    serving.pollers.heard(serving.store, wanted, pollers)
    dealt = together_or_alone(partial(_dealt, serving, wanted), pollers)
    shares = [each for each in dealt if not isinstance(each, Exception)]
    answers = iter(together_or_alone(partial(_shown, serving, wanted), shares))
    return [each if isinstance(each, Exception) else next(answers) for each in dealt]


def _dealt(serving: Services, wanted: Wanted, pollers: Sequence[Poller]) -> list[list[HeldTask]]:
    """Claim what workers have asked for, as far as it is there; gives the tasks of each."""
    takers = [poller.worker for poller in pollers for _ in range(poller.limit)]
    claimed: dict[str, deque[HeldTask]] = defaultdict(deque)
    for task in _claimed(serving, wanted, takers):
        claimed[task.step.worker_name or ""].append(task)
    return [_taken(claimed[poller.worker], poller.limit) for poller in pollers]


def _taken(claimed: deque[HeldTask], limit: int) -> list[HeldTask]:
    """Take the first tasks of a worker: it may have asked twice."""
    return [claimed.popleft() for _ in range(min(limit, len(claimed)))]


def _claimed(serving: Services, wanted: Wanted, takers: Sequence[str]) -> list[HeldTask]:
    if runs_in_process(wanted.handler):
        return []
    claim = partial(serving.engine.claim_tasks, handler=wanted.handler, tenant_id=wanted.tenant, rank=wanted.rank)
    claimed = claim(takers, queue=wanted.queue) if takers else []
    if wanted.queue is None and serving.settings.poll_any_queue and len(claimed) < len(takers):
        with serving.store.reading(wanted.tenant) as tx:
            queues = tasks.named_queues(tx, wanted.handler, wanted.tenant)
        for queue in queues:
            if left := takers[len(claimed) :]:
                claimed += claim(left, queue=queue)
    return sorted(claimed, key=_age)


def _age(task: HeldTask) -> tuple[Any, ...]:
    return task.step.ready_at or task.step.entered_at, task.step.id


def _shown(serving: Services, wanted: Wanted, shares: Sequence[list[HeldTask]]) -> list[Response]:
    """Show claimed tasks with their inputs; those whose inputs cannot be made are failed and left out."""
    claims = [task.claim for share in shares for task in share]
    work = [serving.credential_use.filled(each) for each in serving.engine.inputs(claims)] if claims else []
    # A claim that has ended meanwhile is not ours to fail.
    broken = [
        Report(claim=each.claim, outcome=each.failure)
        for each in work
        if each.failure is not None and each.failure.kind is not FailureKind.LOST
    ]
    if broken:
        serving.engine.finish(broken)
    # The claim has asked for tasks of the tenant; that the instance is the tenant's, too, does not depend on that.
    ready = {
        each.claim.token: each
        for each in work
        if each.failure is None and wanted.tenant in {None, each.instance.tenant_id}
    }
    return [
        Json(
            [
                open_task_view(task, ready[token].params, ready[token].scope)
                for task in share
                if (token := task.claim.token) in ready
            ]
        )
        for share in shares
    ]
