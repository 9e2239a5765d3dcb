"""Endpoints that read instances (contract, api §10.4)."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from orchestrator import bindings
from orchestrator.api.addresses import InstanceId, Limit, Offset
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.instance_shapes import (
    Attempt,
    AuditRow,
    BlockOutput,
    EffectView,
    InstancePage,
    TaskInstance,
    Timeline,
    TreeNode,
)
from orchestrator.api.instances import check_owned
from orchestrator.api.services import Services, Serving
from orchestrator.api.views import (
    attempt_view,
    audit_view,
    effect_view,
    instance_view,
    listed_view,
    output_views,
    timeline_entry,
)
from orchestrator.core import tree
from orchestrator.core.states import InstanceState
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.store import effects, instances, pages
from orchestrator.store.listing import Filter

router = APIRouter(tags=["instances"])
MAX_PAGE = 1000
MAX_AUDIT_ROWS = 200
_METADATA = "metadata."


@router.get("/instances", responses={200: {"model": InstancePage}})
def list_instances(
    serving: Serving,
    caller: CallerDependency,
    request: Request,
    tenant_id: str | None = None,
    namespace: str | None = None,
    sequence_id: UUID | None = None,
    state: Annotated[str | None, Query(description="states, separated by commas")] = None,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """List instances, the newest change first. `metadata.<key>=<text>` narrows the list further."""
    which = _filter(caller, request, tenant_id, namespace, sequence_id, _states(state))
    limit = min(limit, MAX_PAGE)
    found = _find(serving, which, offset=offset, limit=limit + 1)
    return Json({"items": found[:limit], "has_more": len(found) > limit})


@router.get("/instances/dlq", responses={200: {"model": list[TaskInstance]}})
def list_failed(
    serving: Serving,
    caller: CallerDependency,
    request: Request,
    tenant_id: str | None = None,
    namespace: str | None = None,
    sequence_id: UUID | None = None,
    state: Annotated[str | None, Query(description="checked, and without effect: all of them have failed")] = None,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """List failed instances: the dead letters."""
    _states(state)
    which = _filter(caller, request, tenant_id, namespace, sequence_id, (InstanceState.FAILED,))
    return Json(_find(serving, which, offset=offset, limit=min(limit, MAX_PAGE)))


def _filter(
    caller: Caller,
    request: Request,
    tenant_id: str | None,
    namespace: str | None,
    sequence_id: UUID | None,
    states: tuple[str, ...] | None,
) -> Filter:
    query = request.query_params.multi_items()
    return Filter(
        tenant_id=caller.narrowed(tenant_id),
        namespace=namespace,
        sequence_id=sequence_id,
        states=states,
        metadata=tuple((name.removeprefix(_METADATA), text) for name, text in query if name.startswith(_METADATA)),
    )


def _states(written: str | None) -> tuple[str, ...] | None:
    words = [word.strip() for word in written.split(",") if word.strip()] if written is not None else []
    for word in words:
        if word not in set(InstanceState):
            raise InvalidArgument(f"unknown state {word!r}")
    return tuple(words) or None


def _find(serving: Services, which: Filter, *, offset: int, limit: int) -> list[dict[str, Any]]:
    with serving.store.reading(which.tenant_id) as tx:
        instances.freeze(tx)
        found = bindings.listed(tx, serving.plans, pages.find(tx, which, offset=offset, limit=limit))
    return [listed_view(row) for row in found]


@router.get("/instances/{id}", responses={200: {"model": TaskInstance}})
def read_instance(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Read one instance."""
    with serving.store.reading(caller.tenant) as tx:
        record = instances.get(tx, instance_id, caller.tenant)
        if record is None:
            raise NotFound(f"instance {instance_id}")
        [shown] = bindings.shown(tx, serving.plans, [record])
    return Json(instance_view(shown))


@router.get("/instances/{id}/outputs", responses={200: {"model": list[BlockOutput]}})
def read_outputs(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Read the outputs, in the order they were stored."""
    check_owned(serving, caller, instance_id)
    with serving.store.reading(caller.tenant) as tx:
        return Json(output_views(instance_id, instances.outputs(tx, instance_id)))


@router.get("/instances/{id}/tree", responses={200: {"model": list[TreeNode]}})
def read_tree(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Read the state of every block."""
    check_owned(serving, caller, instance_id)
    with serving.store.reading(caller.tenant) as tx:
        instances.freeze(tx)
        record = instances.get(tx, instance_id)
        if record is None:
            raise NotFound(f"instance {instance_id}")
        plan = serving.plans.of_instances(tx, [record.instance]).get(instance_id)
        if plan is None:
            raise NotFound(f"instance {instance_id}")
        rows = [tree.node_entry(*row) for row in instances.newest_nodes(tx, instance_id)]
        rows += [tree.step_entry(*row) for row in instances.open_steps(tx, instance_id)]
    return Json(tree.build(plan, instance_id, record.instance.state, rows))


@router.get("/instances/{id}/children", responses={200: {"model": list[TaskInstance]}})
def read_children(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Read the instances that blocks of this one have started, the oldest first."""
    check_owned(serving, caller, instance_id)
    with serving.store.reading(caller.tenant) as tx:
        found = bindings.shown(tx, serving.plans, instances.children(tx, instance_id))
    return Json([instance_view(record) for record in found])


@router.get("/instances/{id}/effects", responses={200: {"model": list[EffectView]}})
def read_effects(
    serving: Serving, caller: CallerDependency, instance_id: InstanceId, tenant_id: str | None = None
) -> Response:
    """Read what the steps of an instance have done outside of it, in order."""
    with serving.store.reading(caller.narrowed(tenant_id)) as tx:
        if instances.get(tx, instance_id, caller.narrowed(tenant_id)) is None:
            raise NotFound(f"instance {instance_id}")
        return Json([effect_view(done) for done in effects.find(tx, instance_id)])


@router.get("/instances/{id}/audit", responses={200: {"model": list[AuditRow]}})
def read_audit(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Read the changes of state, the newest first."""
    check_owned(serving, caller, instance_id)
    with serving.store.reading(caller.tenant) as tx:
        return Json([audit_view(instance_id, row) for row in instances.transitions(tx, instance_id, MAX_AUDIT_ROWS)])


@router.get("/instances/{id}/timeline", responses={200: {"model": Timeline}})
def read_timeline(
    serving: Serving,
    caller: CallerDependency,
    instance_id: InstanceId,
    offset: Offset = 0,
    limit: Limit = 200,
    include_outputs: bool = False,
) -> Response:
    """Read what has happened: changes of state, and stored rows a page at a time, the oldest first."""
    limit = min(limit, MAX_PAGE)
    with serving.store.reading(caller.tenant) as tx:
        instances.freeze(tx)
        record = instances.get(tx, instance_id, caller.tenant)
        if record is None:
            raise NotFound(f"instance {instance_id}")
        moves = instances.transitions(tx, instance_id, MAX_PAGE)
        rows = instances.outputs_page(tx, instance_id, offset=offset, limit=limit + 1)
        [shown] = bindings.shown(tx, serving.plans, [record])
    return Json(
        {
            "instance": instance_view(shown),
            "state_transitions": [audit_view(instance_id, row) for row in reversed(moves)],
            "entries": [timeline_entry(row, with_output=include_outputs) for row in rows[:limit]],
            "offset": offset,
            "limit": limit,
            "has_more": len(rows) > limit,
        }
    )


@router.get("/instances/{id}/attempts", responses={200: {"model": list[Attempt]}})
def read_attempts(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Read the history of executions, failed and lost ones too (an extension of the wire format)."""
    check_owned(serving, caller, instance_id)
    with serving.store.reading(caller.tenant) as tx:
        return Json([attempt_view(row) for row in instances.attempts(tx, instance_id)])
