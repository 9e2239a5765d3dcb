"""What operators see of external workers and their tasks (contract, api §13.7)."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from orchestrator.api.addresses import Limit, Offset, TaskId
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.services import Services, Serving
from orchestrator.api.task_shapes import TaskEventView, TaskStats, WorkerTask, WorkerView
from orchestrator.api.task_views import ended_task_view, made_at_of, open_task_view, task_event_view
from orchestrator.core.steps import runs_in_process
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.store import instances, leases, task_events, tasks
from orchestrator.store.postgres import PostgresTransaction
from orchestrator.store.tasks import EndedKey, TaskFilter, worker_key
from orchestrator.task_inputs import inputs_now
from sequences.scope import Scope

router = APIRouter(tags=["workers"])
MAX_PAGE = 1000
MAX_OFFSET = 100_000
"""Pages are cut out of two lists after they were merged, so a far one costs the names of all before it."""
TASK_STATES = ("pending", "claimed", "completed", "failed")


@router.get("/workers/tasks", responses={200: {"model": list[WorkerTask]}})
def list_tasks(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    state: str | None = None,
    handler_name: str | None = None,
    worker_id: str | None = None,
    queue_name: str | None = None,
    offset: Offset = 0,
    limit: Limit = 50,
) -> Response:
    """List tasks, the newest first: open ones, and those that ended in the last week."""
    if state is not None and state not in TASK_STATES:
        raise InvalidArgument(f"unknown task state {state!r}")
    if offset > MAX_OFFSET:
        raise InvalidArgument(f"offset must not exceed {MAX_OFFSET}")
    which = TaskFilter(
        tenant_id=caller.narrowed(tenant_id), handler=handler_name, worker=worker_id, queue=queue_name, state=state
    )
    limit = min(limit, MAX_PAGE)
    with serving.store.reading(which.tenant_id) as tx:
        instances.freeze(tx)
        page = _keys(tx, which, offset + limit)[offset:]
        views = _open(serving, tx, [key for key in page if isinstance(key, UUID)])
        views += [
            ended_task_view(row) for row in tasks.read_ended(tx, [key for key in page if isinstance(key, EndedKey)])
        ]
    views.sort(key=lambda view: (view["created_at"], view["id"]), reverse=True)
    return Json(views)


def _keys(tx: PostgresTransaction, which: TaskFilter, most: int) -> list[UUID | EndedKey]:
    """Name tasks, the newest first: open ones by their id. What they hold is read of one page alone."""
    found: list[tuple[datetime, UUID, UUID | EndedKey]] = [
        (made_at, step_id, step_id) for step_id, made_at in tasks.open_keys(tx, which, most)
    ]
    if which.state not in {"pending", "claimed"}:
        ended = tasks.recently_ended(tx, which, most)
        found += [(made_at_of(key.step_id) or key.ended_at, key.step_id, key) for key in ended]
    found.sort(key=lambda each: each[:2], reverse=True)
    return [key for _, _, key in found[:most]]


def _open(serving: Services, tx: PostgresTransaction, step_ids: list[UUID]) -> list[dict[str, Any]]:
    held = leases.held_tasks(tx, step_ids)
    inputs = inputs_now(serving.plans, tx, held)
    views = []
    for task in held:
        made = inputs.get(task.step.id)
        params, scope = (made.params, made.scope) if made is not None else (None, Scope())
        views.append(open_task_view(task, params, scope))
    return views


@router.get("/workers/tasks/{id}/attempts", responses={200: {"model": list[TaskEventView]}})
def read_task_attempts(serving: Serving, caller: CallerDependency, task_id: TaskId, limit: Limit = 100) -> Response:
    """Tell what happened to one task: claims, leases taken back, late reports, its end; the oldest first."""
    with serving.store.reading(caller.tenant) as tx:
        history = task_events.of_task(tx, task_id)
    if history is None or caller.tenant not in {None, history.tenant_id} or runs_in_process(history.handler or ""):
        raise NotFound(f"worker_task {task_id}")
    return Json([task_event_view(task_id, event) for event in history.events[: min(limit, MAX_PAGE)]])


@router.get("/workers/tasks/stats", responses={200: {"model": TaskStats}})
def task_stats(serving: Serving, caller: CallerDependency, tenant_id: str | None = None) -> Response:
    """Count tasks by state and handler, and name the workers that hold claims."""
    tenant = caller.narrowed(tenant_id)
    with serving.store.reading(tenant) as tx:
        counts, claimers = tasks.counts(tx, tenant), tasks.claimers(tx, tenant)
    by_state: Counter[str] = Counter()
    by_handler: dict[str, dict[str, int]] = {}
    for handler, state, count in counts:
        by_state[state] += count
        by_handler.setdefault(handler, {})[state] = count
    return Json({"by_state": dict(by_state), "by_handler": by_handler, "active_workers": claimers})


@router.get("/workers", responses={200: {"model": list[WorkerView]}})
def list_workers(
    serving: Serving,
    caller: CallerDependency,
    alive_within_secs: Annotated[int, Query(ge=0, le=10**9)] = 60,
    include_stale: bool = False,
) -> Response:
    """List workers: processes of our own, which serve all tenants, and pollers of the caller's tenant."""
    with serving.store.reading(caller.tenant) as tx:
        rows = tasks.heard_of(tx, timedelta(seconds=alive_within_secs), caller.tenant)
    return Json(
        [
            {
                "worker_id": name,
                "handlers": handlers,
                "queues": queues,
                "version": version,
                "last_seen_at": seen_at,
                "alive": is_alive,
                "in_flight": in_flight,
            }
            for key, name, kind, handlers, queues, seen_at, is_alive, in_flight, version in rows
            if (is_alive or include_stale)
            and (kind != "http" or caller.tenant is None or key == worker_key(caller.tenant, name))
        ]
    )
